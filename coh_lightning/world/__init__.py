"""The embedded world: posts of simple facts, summaries of mixed quality, raters that judge by rule, and a tiny base
model trained on it all.

Small enough for any machine, and verifiable: whether an output is right can be computed. It is what the demo
and the tests use; scripts/build_world.py makes the base model again.

    posts      seeded posts, their facts, gold summaries, writers of mixed quality, questions
    raters     accuracy, coverage, coherence of any text about a post, and a critique of it in words
    tokenizer  a byte-level BPE: each word of the world is one token, all bytes stand beside
    sampler    what the base model writes (used before there is anything to fine-tune)
    feedback   the base's samples, rated: the feedback that `fit` starts from
    evaluate   scores, intervals, comparisons with a baseline
"""
