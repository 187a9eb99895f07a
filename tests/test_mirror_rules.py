"""The rules of the mirror: what is to be done with an object in the bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.mirror.environment import role_service
from asyncexport.core.mirror.objects import Held, Step, Wanted, difference, step_for
from asyncexport.core.mirror.seen import DIGITS, seen_digest

HASHES = st.sampled_from(["a" * 64, "b" * 64, "c" * 64])
SIZES = st.integers(0, 3)
TAGS = st.none() | st.sampled_from(['"1"', '"2"'])
WANTED = st.builds(Wanted, st.sampled_from(["x/1.gz", "x/2.gz"]), SIZES, HASHES)
HELD = st.builds(Held, SIZES, TAGS, TAGS, st.none() | st.just("") | HASHES, st.booleans())
EARLIER = st.frozensets(HASHES, max_size=2)


@given(wanted=WANTED, held=st.none() | HELD, earlier=EARLIER)
def test_only_an_object_that_is_ours_is_ever_replaced(wanted, held, earlier):
    """It was read, and its metadata has the hash of this archive or of an earlier one of the bundle."""
    step = step_for(wanted, held, earlier)
    if held is None:
        assert step is Step.ADD
    elif not held.is_read:
        assert step is Step.READ
    elif (held.sha256, held.bytes) == (wanted.sha256, wanted.bytes):
        assert step is Step.KEEP
    else:
        assert (step is Step.REPLACE) == (held.sha256 in {wanted.sha256, *earlier})
        assert step in (Step.REPLACE, Step.REFUSE)


@given(wanted=WANTED, held=HELD, earlier=EARLIER)
def test_every_difference_has_a_reason(wanted, held, earlier):
    """And what is right has none."""
    step = step_for(wanted, held, earlier)
    if step is not Step.READ:
        assert bool(difference(wanted, held, step)) == (step is not Step.KEEP)


@given(one=st.tuples(WANTED, HELD), other=st.tuples(WANTED, HELD))
def test_a_digest_names_one_file_and_one_content(one, other):
    """Two are equal only if name, size, hash and ETag are; the version is not in listings."""

    def facts(wanted: Wanted, held: Held) -> object:
        return (wanted, held.e_tag) if held.e_tag is not None else None

    digests = [seen_digest("s3://bucket", *pair) for pair in (one, other)]
    assert (digests[0] == digests[1]) == (facts(*one) == facts(*other))
    assert all(digest is None or len(digest) == DIGITS for digest in digests)
    if digests[0] is not None:
        assert seen_digest("s3://other", *one) != digests[0]


@pytest.mark.parametrize(
    ("environ", "service"),
    [
        ({}, ("169.254.169.254", 80)),
        ({"AWS_METADATA_ENDPOINT": "http://127.0.0.1:9"}, ("127.0.0.1", 9)),
        ({"AWS_METADATA_ENDPOINT": "https://[::1]"}, ("::1", 443)),
        ({"AWS_ACCESS_KEY_ID": "x"}, None),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/x", "AWS_ROLE_ARN": "x"}, None),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://x"}, None),
        ({"AWS_SKIP_SIGNATURE": "true"}, None),
    ],
)
def test_a_role_is_asked_for_only_without_a_key(environ, service):
    """A machine that has a key, or gets one in another way, asks nobody."""
    assert role_service(environ) == service
