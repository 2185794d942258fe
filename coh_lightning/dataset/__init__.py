"""What the data module is made of: splits, pretraining text, rows, loaders, the report of what was counted."""
