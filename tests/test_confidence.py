"""The limit that follows from a random sample: exact, never too low, and lower for larger samples."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.confidence import CONFIDENCE, upper_share

SAMPLES = st.integers(1, 60).flatmap(lambda sampled: st.tuples(st.integers(0, sampled), st.just(sampled)))


def chance_of(found: int, sampled: int, share: Fraction) -> Fraction:
    """Return the exact probability of this many finds."""
    return comb(sampled, found) * share**found * (1 - share) ** (sampled - found)


def chance_of_at_most(found: int, sampled: int, share: Fraction) -> Fraction:
    """Return the exact probability of at most this many finds."""
    return sum((chance_of(count, sampled, share) for count in range(found + 1)), Fraction(0))


@pytest.mark.parametrize(
    ("found", "sampled", "limit"),
    [
        (0, 120, 0.024655),
        (0, 60, 0.048703),
        (0, 1, 0.95),
        (1, 1, 1.0),
        (1, 20, 0.216106),
        (3, 120, 0.063344),
        (5, 10, 0.777559),
        (10, 1000, 0.016903),
    ],
)
def test_limits_agree_with_known_values(found, sampled, limit):
    """The limits are those of the beta distribution, to six digits."""
    assert upper_share(found, sampled) == pytest.approx(limit, abs=6e-7)


@given(SAMPLES)
def test_the_limit_is_the_share_at_which_so_few_finds_become_unlikely(sample):
    """At the limit, the probability of at most so many finds is one minus the confidence, in exact arithmetic."""
    found, sampled = sample
    limit = Fraction(upper_share(found, sampled))
    if found == sampled:
        assert limit == 1
        return
    assert float(chance_of_at_most(found, sampled, limit)) == pytest.approx(1 - CONFIDENCE, rel=1e-9)


@given(st.integers(1, 40), st.fractions(0, 1, max_denominator=1000))
def test_the_limit_is_rarely_below_the_true_share(sampled, share):
    """Whatever the true share is, at least 95 % of all samples give a limit that is not below it."""
    too_low = sum(
        (chance_of(found, sampled, share) for found in range(sampled + 1) if upper_share(found, sampled) < share),
        Fraction(0),
    )
    assert float(too_low) <= 1 - CONFIDENCE + 1e-12


@given(SAMPLES)
def test_more_finds_raise_the_limit_and_more_samples_lower_it(sample):
    """The limit grows with the number of finds, falls with the size of the sample, and is above the share found."""
    found, sampled = sample
    limit = upper_share(found, sampled)
    assert found / sampled <= limit <= 1
    assert upper_share(found, sampled + 1) < limit
    if found < sampled:
        assert limit < upper_share(found + 1, sampled)
        assert limit < upper_share(found, sampled, confidence=0.99)


def test_large_samples_are_quick_and_exact():
    """A million bundles can be sampled; without a find the limit is close to three in the number of samples."""
    assert upper_share(0, 1_000_000) == pytest.approx(2.995732e-6, rel=1e-5)
    assert upper_share(500_000, 1_000_000) == pytest.approx(0.5008229, abs=1e-6)


@pytest.mark.parametrize(("found", "sampled"), [(0, 0), (-1, 5), (6, 5)])
def test_an_impossible_result_is_refused(found, sampled):
    """There is no limit for an empty sample, or for more finds than samples."""
    with pytest.raises(ValueError, match="is not a result of a sample"):
        upper_share(found, sampled)
