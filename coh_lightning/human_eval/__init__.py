"""The blind human study: sample sizes, sheets, a page to rate in, checked import, a report with intervals. Works on
files alone, without torch or Lightning.
"""
