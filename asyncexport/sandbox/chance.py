"""Reproducible random numbers: they depend neither on the process nor on the order of the calls."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

WORD = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """Hash several numbers into one word of 64 bits. The order of the numbers matters."""
    word = 0x9E3779B97F4A7C15
    for number in numbers:
        word = ((word ^ number) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & WORD
        word ^= word >> 29
    return word


def pick(rng: random.Random, choices: Sequence[T]) -> T:
    """Return one of the choices at random."""
    return choices[int(rng.random() * len(choices))]


def identifier(rng: random.Random) -> int:
    """Return an id like the service's: an integer too big for a float, within 63 bits."""
    return (1 << 60) + rng.getrandbits(62)
