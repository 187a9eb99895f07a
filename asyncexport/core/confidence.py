"""How many of all bundles may have a property, when some of a random sample have it."""

import math

CONFIDENCE = 0.95
"""The probability with which a limit holds, over all samples that could have been drawn."""


def upper_share(found: int, sampled: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the share of all that is an upper limit for those with a property.

    This is the exact one-sided limit of Clopper and Pearson: the largest share at which so few finds still have a
    probability of 1 - `confidence`. If none was found, it is close to 3 / `sampled` (the rule of three).

    Args:
        found: How many of the sample have the property.
        sampled: The size of the sample, at least 1.
        confidence: The probability with which the limit holds.
    """
    if not 0 <= found <= sampled or sampled < 1:
        raise ValueError(f"{found} of {sampled} is not a result of a sample")
    missed = 1.0 - confidence
    if found == sampled:
        return 1.0
    if found == 0:
        return -math.expm1(math.log(missed) / sampled)
    # The median of a binomial distribution with this mean is the mean, so the limit is not below it.
    low, high = found / sampled, 1.0
    while low < (middle := (low + high) / 2) < high:
        if _at_most(found, sampled, middle) > missed:
            low = middle
        else:
            high = middle
    return high


def _at_most(found: int, sampled: int, share: float) -> float:
    """Return the probability of at most this many finds, which must not be more than the expected number."""
    coefficient = math.lgamma(sampled + 1) - math.lgamma(found + 1) - math.lgamma(sampled - found + 1)
    term = math.exp(coefficient + found * math.log(share) + (sampled - found) * math.log1p(-share))
    total, odds = term, (1.0 - share) / share
    for count in range(found, 0, -1):
        # The terms fall from here on; the rest of them does not change the sum.
        term *= count / (sampled - count + 1) * odds
        total += term
        if term < total * 1e-17:
            break
    return total
