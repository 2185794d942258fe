"""The language model: loading, checkpoints, adapters, attention over trees, losses, sharding."""
