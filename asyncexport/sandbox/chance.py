"""Chance that is the same in every process, on every day and in every order of asking."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WORD = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """One word of 64 bits out of several numbers; any other number, wherever it stands, gives another word."""
    word = 0x9E3779B97F4A7C15
    for number in numbers:
        word = ((word ^ number) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & WORD
        word ^= word >> 29
    return word


def pick(rng: random.Random, choices: Sequence[T]) -> T:
    """One of them."""
    return choices[int(rng.random() * len(choices))]


def identifier(rng: random.Random) -> int:
    """An id as the service has them: an integer beyond what a float can hold, within 63 bits."""
    return (1 << 60) + rng.getrandbits(62)
