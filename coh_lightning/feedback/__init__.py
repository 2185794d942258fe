"""Records, completions, judgments, and JSON lines of them, read and checked; `sources/` has one file per format."""
