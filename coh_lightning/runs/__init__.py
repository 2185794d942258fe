"""The run folder: its files, resuming, preemption, W&B."""
