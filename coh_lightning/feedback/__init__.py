"""What people said, read and checked: records, completions, judgments, JSON lines; `sources/` has one file per format."""
