"""The command line: one file per command, the parser of configurations, and its errors."""
