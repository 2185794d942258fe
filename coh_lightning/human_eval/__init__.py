"""The blind human study: sample sizes, sheets, a page to rate in, checked import, a report with intervals. Files only:
neither torch nor Lightning.
"""
