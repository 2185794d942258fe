"""The embedded world of demo and tests, in which it can be computed whether an output is right: posts of simple facts,
summaries of mixed quality, raters that judge by rule, and a tiny base model (scripts/build_world.py makes it).

    posts        seeded posts, their facts, gold summaries, writers of mixed quality, questions
    pretraining  the text of the base model
    raters       accuracy, coverage, coherence of any text about a post, and a critique of it
    tokenizer    a byte-level BPE with one token per word of the world
    feedback     the base model's samples, rated: the feedback that `fit` trains on
    evaluate     scores, intervals, comparisons with a baseline

Beside it, for a real model, instructions with constraints that can be checked by rule (`world:constraints`).

    constraints  the rules; a rater and critic of any answer
    instructions seeded instructions, and feedback on a model's own answers to them
"""
