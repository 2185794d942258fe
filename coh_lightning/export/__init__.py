"""A Hugging Face folder of a checkpoint: weights, tokenizer, chat template, model card, and their checks."""
