"""The mirror, against a real S3 server: what is uploaded, what is replaced, and what is never touched."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from urllib.parse import unquote

import obstore
import pytest

from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export
from asyncexport.core.mirror.tally import Outcome
from asyncexport.errors import ConfigError, MirrorError
from asyncexport.ledger.folder import LEDGER_FOLDER
from asyncexport.mirror.seen_file import FILE_NAME
from asyncexport.run.rebuild import rebuild
from tests.load_rig import EVENTS, Arrival, events
from tests.s3_server import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

if not why_not():
    from tests.mirror_rig import DEFINITION, archive, hours, in_environment, rig  # noqa: F401 - rig is a fixture


def test_a_mirror_uploads_what_was_stored_before_it_was_set(rig):
    """Archives and definition are there under their names, and a second mirror uploads nothing."""
    summary = rig.mirror()
    rig.check_complete()
    size = sum(map(len, rig.files().values()))
    assert summary.to_dict()["mirror"] == {
        "uploaded": 4,
        "already": 0,
        "failed": 0,
        "bytes": size,
        "foreign": 0,
        "missing": 0,
    }
    assert summary.exit_code is Exit.DONE
    summary = rig.mirror()
    assert summary.to_dict()["mirror"] == {
        "uploaded": 0,
        "already": 4,
        "failed": 0,
        "bytes": 0,
        "foreign": 0,
        "missing": 0,
    }
    assert rig.events == []


async def test_a_second_mirror_needs_one_request(rig):
    """What is known to be right is compared with the listing. Without that memory, each object is examined once."""
    async with rig.proxied() as proxy:
        assert await rig.counts() == (4, 0, 0, 0)
        assert [one.method for one in proxy.calls] == ["GET", *["PUT"] * 4]
        assert {one.headers.get("if-none-match") for one in proxy.calls if one.uploads} == {"*"}
        assert all("x-amz-checksum-sha256" in one.headers for one in proxy.calls if one.uploads)
        proxy.calls.clear()
        assert await rig.counts() == (0, 4, 0, 0)
        assert [one.method for one in proxy.calls] == ["GET"]
        (rig.place.output / LEDGER_FOLDER / FILE_NAME).unlink()
        proxy.calls.clear()
        assert await rig.counts() == (0, 4, 0, 0)
        assert (proxy.count("GET"), proxy.count("HEAD"), len(proxy.calls)) == (1, 4, 5)


async def test_a_bucket_with_versions_is_like_any_other(rig):
    """Its listings have no versions, and a second mirror needs one request nevertheless."""
    async with rig.proxied() as proxy:
        proxy.headers = {"x-amz-version-id": "an-id"}
        assert await rig.counts() == (4, 0, 0, 0)
        proxy.calls.clear()
        assert await rig.counts() == (0, 4, 0, 0)
        assert [one.method for one in proxy.calls] == ["GET"]
        await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
        assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


async def test_the_pages_of_the_ledger_make_no_difference(rig, monkeypatch):
    """Everything is compared once, however many archives are read at a time."""
    monkeypatch.setattr("asyncexport.run.mirror_pairs.PAGE", 2)
    await rig.place.stored(*hours(3, 4), *hours(24, 3))
    obstore.put(rig.store, archive(5), b"theirs")
    assert await rig.counts() == (10, 0, 0, 1)
    assert await rig.counts() == (0, 10, 0, 1)
    assert await rig.differences() == [("foreign", archive(5))]


async def test_each_export_has_its_folder(rig):
    """Orphans are looked for in the folder of each export that has archives."""
    other = Export("other", EVENTS.definition)
    rig.place.exports = (EVENTS, other)
    await rig.place.stored(*hours(0, 2, export="other"))
    folder = rig.place.output / "other"
    (folder / ".export.json").write_bytes((rig.place.output / DEFINITION).read_bytes())
    obstore.put(rig.store, "other/orphan", b"-")
    assert await rig.counts() == (7, 0, 0, 0)
    assert await rig.differences() == [("orphan", "other/orphan")]
    (folder / ".export.json").unlink()
    obstore.delete(rig.store, "other/.export.json")
    assert await rig.counts() == (0, 6, 1, 0)
    assert await rig.differences() == [("broken", "other/.export.json"), ("orphan", "other/orphan")]


async def test_a_new_revision_replaces_the_archive_that_the_ledger_knew(rig):
    """With If-Match, and only that one."""
    await rig.mirrored()
    await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
    assert await rig.differences() == [("differs", archive(1))]
    async with rig.proxied() as proxy:
        assert await rig.counts() == (1, 3, 0, 0)
        (put,) = [one for one in proxy.calls if one.uploads]
        assert put.headers["if-match"]
    rig.check_complete()
    await rig.place.stored(Arrival((1, 2), events(6000, 7), revision=2), Arrival((1, 2), events(7000, 7), revision=3))
    assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


@pytest.mark.parametrize("attributes", [{}, {"sha256": "0" * 64}, {"sha256": ""}])
async def test_an_object_of_somebody_else_is_never_overwritten(rig, attributes):
    """It is named, the others are uploaded, and the exit code is 3."""
    obstore.put(rig.store, archive(1), b"of somebody else", attributes=attributes)
    summary = await rig.mirrored()
    assert summary.exit_code is Exit.PARTIAL
    assert summary.to_dict()["mirror"]["foreign"] == 1
    assert summary.to_dict()["mirror"]["uploaded"] == 3
    (event,) = [one for one in rig.events if one.outcome is Outcome.FOREIGN]
    assert archive(1) in str(event.error)
    assert rig.objects()[archive(1)] == b"of somebody else"
    assert await rig.differences() == [("foreign", archive(1))]


@pytest.mark.parametrize("name", ["/x", "../x", "x&#10;y"])
async def test_an_object_with_an_odd_name_does_not_stop_the_mirror(rig, name, caplog):
    """If the library cannot read the listing because of it, each object is examined by its name."""
    obstore.put(rig.store, f"{EVENTS.name}/ODD", b"of somebody else")
    async with rig.proxied() as proxy:
        proxy.rewritten = {b"ODD": name.encode()}
        assert await rig.counts() == (4, 0, 0, 0)
        assert await rig.counts() == (0, 4, 0, 0)
        assert "an object has a name that the library cannot read" in caplog.text
        obstore.delete(rig.store, archive(1))
        assert await rig.differences() == [("missing", archive(1))]


async def test_what_another_mirror_uploads_meanwhile_is_not_foreign(rig):
    """A run may replace an archive and mirror it between the look of a mirror and its upload."""
    rig.limits = replace(rig.limits, uploads=1)
    await rig.mirrored()
    # The hashes of earlier archives are read for the first archive, before the second one is replaced.
    await rig.place.stored(Arrival((0, 1), events(9000, 3), revision=1))
    obstore.delete(rig.store, archive(1))
    async with rig.proxied() as proxy:

        def run(call):
            if call.uploads and archive(1) in unquote(call.path):
                proxy.meanwhile = lambda _call: None
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(rig.place.store, Arrival((1, 2), events(5000, 7), revision=1)).result()
                content = rig.files()[archive(1)]
                obstore.put(rig.store, archive(1), content, attributes={"sha256": sha256(content).hexdigest()})

        proxy.meanwhile = run
        assert (await rig.counts())[2:] == (0, 0)
    rig.check_complete()


@pytest.mark.parametrize("revision", [0, 1])
async def test_an_object_that_appears_meanwhile_is_never_overwritten(rig, revision):
    """The store's own condition refuses the upload, whether there was no object before or an earlier archive."""
    if revision:
        await rig.mirrored()
        await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
    async with rig.proxied() as proxy:

        def appear(call):
            if call.uploads and archive(1) in unquote(call.path):
                obstore.put(rig.store, archive(1), b"of somebody else")

        proxy.meanwhile = appear
        assert await rig.counts() == ((0, 3, 0, 1) if revision else (3, 0, 0, 1))
    assert rig.objects()[archive(1)] == b"of somebody else"


async def test_two_mirrors_at_the_same_time_upload_each_file_once(rig):
    """Each finds the other's objects and leaves them."""
    await asyncio.gather(rig.mirrored(), rig.mirrored())
    rig.check_complete()
    assert await rig.counts() == (0, 4, 0, 0)


async def test_an_archive_that_is_not_what_the_ledger_says_is_not_uploaded(rig):
    """Neither a changed nor a missing one, nor one that is a pipe or a folder; the others are."""
    await rig.place.stored(*hours(3, 2, keeps_file=True))
    spoiled = {archive(number) for number in (0, 1, 3, 4)}
    rig.place.output.joinpath(archive(0)).write_bytes(b"damaged")
    rig.place.output.joinpath(archive(1)).unlink()
    os.mkfifo(rig.place.output / archive(3))
    rig.place.output.joinpath(archive(4)).mkdir()
    summary = await rig.mirrored()
    assert summary.exit_code is Exit.PARTIAL
    assert {one.path for one in rig.events if one.outcome is Outcome.FAILED} == spoiled
    assert set(rig.objects()) == {archive(2), DEFINITION}
    assert set(await rig.differences()) == {("missing", name) for name in spoiled}


async def test_an_archive_that_a_run_is_about_to_record_is_left_for_later(rig):
    """Its file is new and its row is not: nothing is wrong with it."""
    await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1, is_recorded=False))
    assert await rig.counts() == (3, 0, 0, 0)
    await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
    assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


async def test_a_definition_written_differently_is_the_same(rig):
    """One that defines another export is not ours."""
    content = rig.files()[DEFINITION]
    obstore.put(rig.store, DEFINITION, content.replace(b"  ", b""))
    assert await rig.counts() == (3, 1, 0, 0)
    obstore.put(rig.store, DEFINITION, content.replace(b'"everyone"', b'"other"'), attributes={"sha256": "0" * 64})
    assert await rig.counts() == (0, 3, 0, 1)
    assert await rig.differences() == [("foreign", DEFINITION)]


async def test_the_check_finds_every_difference_and_changes_nothing(rig):
    """Missing, earlier and foreign objects, those without a file, and nothing outside of the exports' folders."""
    await rig.mirrored()
    assert await rig.differences() == []
    obstore.delete(rig.store, archive(0))
    obstore.put(rig.store, archive(2), b"altered")
    obstore.put(rig.store, archive(9), b"-")
    obstore.put(rig.store, "other/name", b"-")
    before = rig.objects()
    seen = (rig.place.output / LEDGER_FOLDER / FILE_NAME).read_bytes()
    assert await rig.differences() == [("missing", archive(0)), ("foreign", archive(2)), ("orphan", archive(9))]
    assert rig.objects() == before
    assert (rig.place.output / LEDGER_FOLDER / FILE_NAME).read_bytes() == seen


@pytest.mark.parametrize("name", [archive(0), DEFINITION] if not why_not() else [])
async def test_an_object_that_lost_bytes_is_replaced(rig, name):
    """Its metadata says that it is ours."""
    await rig.mirrored()
    digest = obstore.get(rig.store, name).attributes["sha256"]
    obstore.put(rig.store, name, b"cut", attributes={"sha256": digest})
    assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


async def test_a_ledger_is_rebuilt_from_the_bucket_alone(rig, tmp_path):
    """Archives and definitions are enough: `verify --rebuild` makes a ledger of what was downloaded."""
    await rig.mirrored()
    restored = tmp_path / "restored"
    for name, content in rig.objects().items():
        (restored / name).parent.mkdir(parents=True, exist_ok=True)
        (restored / name).write_bytes(content)
    assert [type(one).__name__ async for one in rebuild(restored)] == ["Intact"] * 3
    rig.place.changes["output"]["directory"] = str(restored)
    assert await rig.counts() == (0, 4, 0, 0)


def test_the_settings_are_checked_before_anything_is_done(rig):
    """No mirror, or one that cannot be opened."""
    rig.place.changes["output"]["mirror"] = ""
    with pytest.raises(ConfigError, match="is not set"):
        rig.mirror()
    rig.place.changes["output"]["mirror"] = "s3://bucket/prefix"
    with in_environment({"AWS_SKIP_SIGNATURE": "CANARY"}), pytest.raises(ConfigError, match="cannot be used") as caught:
        rig.mirror()
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("AWS_ACCESS_KEY_ID", "CANARY\n", "must be plain ASCII"),
        ("AWS_SECRET_ACCESS_KEY", "CANARY ", "must be plain ASCII"),
        ("AWS_SESSION_TOKEN", "CANARY\r\nx", "must be plain ASCII"),
        ("AWS_SECRET_ACCESS_KEY", "", "must be set together with AWS_ACCESS_KEY_ID"),
        ("AWS_ENDPOINT_URL", "CANARY:9000", "must be a URL that begins with https://"),
        ("AWS_ENDPOINT_URL", "http://CANARY:x", "must be a URL that begins with https://"),
        ("AWS_ALLOW_HTTP", "no", "AWS_ENDPOINT_URL: begins with http://"),
    ],
)
def test_variables_that_the_library_cannot_use_are_named(rig, variable, value, says):
    """Their values are not: with some of them, the library would crash."""
    with in_environment({variable: value}), pytest.raises(ConfigError) as caught:
        rig.mirror()
    assert says in str(caught.value)
    assert "CANARY" not in f"{caught.value} {caught.value.hint}"


def test_a_bucket_that_does_not_exist_ends_the_mirror(rig):
    """The message names it."""
    rig.place.changes["output"]["mirror"] = "s3://no-such-bucket/prefix"
    summary = rig.mirror()
    assert summary.exit_code is Exit.PARTIAL
    assert isinstance(summary.error, MirrorError)
    assert "no-such-bucket/prefix: there is no such bucket" in str(summary.error)


async def test_a_large_archive_is_uploaded_in_parts(rig):
    """It is examined before it is completed, so that no object that appeared meanwhile is overwritten."""
    rig.limits = replace(rig.limits, single_bytes=1 << 20, upload=20.0)
    noise = [event | {"evt_x_str": os.urandom(1 << 20).hex()} for event in events(0, 10)]
    await rig.place.stored(Arrival((5, 6), noise))
    assert await rig.counts() == (5, 0, 0, 0)
    rig.check_complete()
    await rig.place.stored(Arrival((5, 6), noise[:-1], revision=1))
    async with rig.proxied() as proxy:
        proxy.meanwhile = lambda call: obstore.put(rig.store, archive(5), b"theirs") if call.method == "POST" else None
        assert await rig.counts() == (0, 4, 0, 1)
    assert rig.objects()[archive(5)] == b"theirs"
