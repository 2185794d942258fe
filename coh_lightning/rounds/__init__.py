"""Rounds of writing, feedback and training (`coh rounds`): what the newest model writes is judged and learned from.

rounds_file.py   a file of conf/rounds/ -> RoundsFile
pool.py          the prompts of each round, and the feedback that it learns from
steps.py         the commands of a round
execution.py     runs them, several seeds at a time; stops where people's sheets are missing
summary.py       the figures of each round -> rounds.json, a table, a page
"""
