"""What the model writes: prompts, decoding, completions made elsewhere, scorers, figures, the samples page."""
