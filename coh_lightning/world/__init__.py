"""The embedded worlds of demo and tests, in which it can be computed whether an output is right: posts of simple facts,
summaries of mixed quality, raters that judge by rule, and tiny base models.

    posts        seeded posts, their facts, gold summaries, questions
    writers      two kinds of worlds, `habits` and `noise`: who wrote the summaries in the pretraining text
    pretraining  the text of a base model
    tokenizer    a byte-level BPE with one token per word of the world
    base_model   trains a base model on that text
    raters       accuracy, coverage, coherence of any text about a post, and its faults
    faults       what is wrong with a summary, as a critique in words
    feedback     a base model's samples, rated: the feedback that `fit` trains on
    folder       a whole world as a folder of ordinary files; `build` is its command
    evaluate     scores, intervals, comparisons with a baseline

Beside it, for a real model, instructions with constraints that can be checked by rule (`world:constraints`).

    constraints  the rules; a rater and critic of any answer
    instructions seeded instructions, and feedback on a model's own answers to them
"""
