"""Baselines that TRL trains (DPO, KTO, a reward model, RLOO) on the token ids that our own fits train on."""
