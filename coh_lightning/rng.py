"""Keyed random numbers: every random draw uses a generator seeded by (seed, purpose, key), never the global one, so
nothing depends on the rank, the number of workers, or where a run was stopped and resumed.
"""

from __future__ import annotations

import hashlib
import random


def key64(seed: int, purpose: str, *key: object) -> int:
    """A 64-bit number that depends only on the arguments; use it to seed any generator."""
    text = "\x1f".join([str(seed), purpose, *map(str, key)])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def generator(seed: int, purpose: str, *key: object) -> random.Random:
    """A `random.Random` for one purpose ("wording", "hiding", "order", ...) and one key (epoch, record id, ...)."""
    return random.Random(key64(seed, purpose, *key))
