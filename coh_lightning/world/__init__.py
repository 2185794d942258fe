"""The embedded world: posts of simple facts, summaries of mixed quality, raters that judge by rule, and a tiny base
model trained on it.

It runs on any machine, and whether an output is right can be computed. Demo and tests use it; `worlds.py` is its entry,
scripts/build_world.py makes its base model.

    posts        seeded posts, their facts, gold summaries, writers of mixed quality, questions
    pretraining  the text of the base model
    raters       accuracy, coverage, coherence of any text about a post, and a critique of it
    tokenizer    a byte-level BPE with one token per word of the world
    sampler      texts of the base model
    feedback     the base model's samples, rated: the feedback that `fit` trains on
    evaluate     scores, intervals, comparisons with a baseline
"""
