"""A language model as judge of two systems' completions, in both orders."""
