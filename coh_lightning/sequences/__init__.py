"""From feedback to rows, in numpy:

wording -> chains -> prompt_format, layout -> encoder -> tokens -> trees -> rows -> plan
"""
