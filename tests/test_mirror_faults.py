"""Mirrors while the network, the object store or the process fails: nothing is lost, overwritten or counted twice."""

import asyncio
import os
import signal
import ssl
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from urllib.parse import unquote

import pytest
import trustme

from asyncexport.core.exits import Exit
from asyncexport.core.mirror.tally import GIVES_UP_AFTER, Outcome
from asyncexport.errors import MirrorError
from asyncexport.ledger.folder import LEDGER_FOLDER
from asyncexport.mirror.seen_file import FILE_NAME
from tests.load_rig import Arrival, events
from tests.s3_proxy import Answer, Call, Fault
from tests.s3_server import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

if not why_not():
    import obstore

    from tests.mirror_rig import MirrorRig, archive, hours, in_environment, rig  # noqa: F401 - rig is a fixture

ROOT = Path(__file__).parents[1]


FAULTS: list[Fault | Answer] = [Fault.REFUSED, Fault.DROPPED, Fault.LOST, Fault.CUT, Answer(403, "AccessDenied")]


def once(fault: Fault | Answer, fits: Callable[[Call], bool]) -> Callable[[Call], Fault | Answer]:
    """Let this go wrong with the first request that fits."""
    left = [fault]

    def decide(call: Call) -> Fault | Answer:
        has_come = call.has_passed == (fault in (Fault.LOST, Fault.CUT))
        return left.pop() if left and has_come and fits(call) else Fault.NONE

    return decide


def is_number(number: int) -> Callable[[Call], bool]:
    """Return whether a request is the one of this number."""
    return lambda call: call.number == number


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DROPPED, Fault.LOST])
@pytest.mark.parametrize("number", range(5))
async def test_a_request_that_fails_once_is_repeated(rig, fault, number):
    """Whichever it is. An upload whose answer was lost finds its own object, which counts as uploaded."""
    async with rig.proxied() as proxy:
        proxy.fault = once(fault, is_number(number))
        assert await rig.counts() == (4, 0, 0, 0)
        assert len(proxy.calls) > 5
    rig.check_complete()


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DROPPED, Fault.LOST])
async def test_a_replacement_that_fails_once_is_repeated(rig, fault):
    """With If-Match, the lost answer leaves a version that the repeated request does not expect."""
    await rig.mirrored()
    await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
    async with rig.proxied() as proxy:
        proxy.fault = once(fault, lambda call: call.uploads)
        assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


async def test_an_object_that_is_gone_before_it_is_replaced_is_created(rig):
    """Some stores then answer 404 instead of 412, which is not said of the bucket."""
    await rig.mirrored()
    await rig.place.stored(Arrival((1, 2), events(5000, 7), revision=1))
    async with rig.proxied() as proxy:
        proxy.fault = lambda call: Answer(404, "NoSuchKey") if "if-match" in call.headers else Fault.NONE
        proxy.meanwhile = lambda call: obstore.delete(rig.store, archive(1)) if call.method == "HEAD" else None
        assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DROPPED, Fault.STALLED])
async def test_a_file_that_keeps_failing_does_not_stop_the_others(rig, fault):
    """It is named, the exit code is 3, and the next mirror uploads it."""
    rig.limits = replace(rig.limits, uploads=1, upload=0.3)
    async with rig.proxied() as proxy:
        proxy.fault = lambda call: fault if call.uploads and archive(1) in unquote(call.path) else Fault.NONE
        summary = await rig.mirrored()
    assert (summary.exit_code, summary.error) == (Exit.PARTIAL, None)
    assert [one.path for one in rig.events if one.outcome is Outcome.FAILED] == [archive(1)]
    assert archive(1) not in rig.objects()
    assert await rig.counts() == (1, 3, 0, 0)
    rig.check_complete()


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DROPPED, Fault.STALLED])
async def test_a_store_that_fails_altogether_ends_the_mirror(rig, fault):
    """After a few files, not after each of a hundred thousand; or with the listing."""
    await rig.place.stored(*hours(3, 17))
    rig.limits = replace(rig.limits, uploads=1, upload=0.3, answer=0.3)
    async with rig.proxied() as proxy:
        proxy.fault = lambda call: fault if call.uploads else Fault.NONE
        summary = await rig.mirrored()
        assert summary.exit_code is Exit.PARTIAL
        assert isinstance(summary.error, MirrorError)
        assert summary.to_dict()["mirror"]["failed"] == GIVES_UP_AFTER
        assert summary.to_dict()["mirror"]["missing"] == 21
        proxy.fault = lambda _call: fault
        summary = await rig.mirrored()
        assert str(summary.error).startswith(f"cannot list {rig.url}: ")
        assert (summary.to_dict()["mirror"]["failed"], summary.to_dict()["mirror"]["missing"]) == (0, 21)
    assert await rig.counts() == (21, 0, 0, 0)


@pytest.mark.parametrize(
    ("answer", "says", "advises"),
    [
        (Answer(403, "RequestTimeTooSkewed"), "refused (status 403, RequestTimeTooSkewed)", "set the clock"),
        (Answer(403, "AccessDenied"), "refused (status 403, AccessDenied)", "AWS_ACCESS_KEY_ID"),
        (Answer(400, "ExpiredToken"), "refused (status 400, ExpiredToken)", "renew the temporary key"),
        (Answer(400, "AuthorizationHeaderMalformed"), "(status 400, AuthorizationHeaderMalformed)", "AWS_REGION"),
        (Answer(301), "the bucket is somewhere else", "AWS_REGION"),
        (Answer(301, "PermanentRedirect"), "the bucket is somewhere else", "AWS_REGION"),
        (Answer(404, "NoSuchBucket"), "there is no such bucket", "create it"),
        (Answer(501, "NotImplemented"), "refused (status 501, NotImplemented)", "If-None-Match"),
        (Answer(503, "SlowDown"), "failed (status 503, SlowDown)", "tries again"),
        (Answer(200), "the answer cannot be understood (GenericError)", "tries again"),
    ],
)
async def test_an_answer_that_ends_the_mirror_says_what_to_do(rig, answer, says, advises):
    """In the words of the store, without anything of the request."""
    async with rig.proxied() as proxy:
        proxy.fault = lambda _call: answer
        summary = await rig.mirrored()
    assert summary.exit_code is Exit.PARTIAL
    assert summary.error
    assert str(summary.error).startswith(f"cannot list {rig.url}: ")
    assert str(summary.error).endswith(says)
    assert advises in summary.error.hint
    assert await rig.counts() == (4, 0, 0, 0)


async def test_a_listing_that_breaks_is_continued(rig):
    """From the last object that came; the library itself does not repeat a request whose answer has begun."""
    await rig.mirrored()
    async with rig.proxied() as proxy:
        proxy.fault = once(Fault.CUT, lambda call: call.method == "GET")
        assert await rig.counts() == (0, 4, 0, 0)
        assert [one.method for one in proxy.calls] == ["GET", "GET"]
        rig.limits = replace(rig.limits, retry=0.0)
        proxy.fault = lambda call: Fault.CUT if call.has_passed else Fault.NONE
        summary = await rig.mirrored()
    assert str(summary.error) == f"cannot list {rig.url}: the connection broke"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9", "the connection was refused"),
        ("https://127.0.0.1:{port}", "the endpoint does not speak TLS"),
    ],
)
async def test_no_server_ends_the_mirror(rig, url, says):
    """The message says so, without anything of the request."""
    with in_environment({"AWS_ENDPOINT_URL": url.format(port=rig.server.port)}):
        summary = await rig.mirrored()
    assert summary.exit_code is Exit.PARTIAL
    assert str(summary.error) == f"cannot list {rig.url}: {says}"


async def test_a_certificate_of_an_unknown_authority_is_named(rig, tmp_path, monkeypatch):
    """A store of one's own may have one; the hint says which variable names the authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server:
        summary = await rig.mirrored()
        assert str(summary.error) == f"cannot list {rig.url}: the certificate of the endpoint is not accepted"
        assert "SSL_CERT_FILE" in summary.error.hint
        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        summary = await rig.mirrored()
        assert "certificate" not in str(summary.error)


async def test_files_are_uploaded_several_at_a_time(rig):
    """As many as the limit says, and no more."""
    await rig.place.stored(*hours(3, 17))
    rig.limits = replace(rig.limits, uploads=3)
    async with rig.proxied() as proxy:
        assert await rig.counts() == (21, 0, 0, 0)
        assert 2 <= proxy.most <= 3


@pytest.mark.parametrize("passes", [False, True])
async def test_a_mirror_that_is_cancelled_at_any_request_is_completed_by_the_next(rig, passes):
    """Before the server gets the request, or after it has answered."""
    total = 5
    for number in range(total):
        rig.prefix = f"{rig.prefix.partition('/at-')[0]}/at-{number}-{passes}"
        rig.place.changes["output"]["mirror"] = rig.url
        async with rig.proxied() as proxy:
            working = asyncio.create_task(rig.mirrored())

            def kill(call, number=number, working=working):
                if call.number == number and call.has_passed == passes:
                    working.cancel()
                    return Fault.LOST if passes else Fault.DROPPED
                return Fault.NONE

            proxy.fault = kill
            with suppress(asyncio.CancelledError):
                await working
            assert working.cancelled()
        uploaded, already, *others = await rig.counts()
        assert (uploaded + already, others) == (4, [0, 0])
        rig.check_complete()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 3, 4])
@pytest.mark.parametrize("passes", [False, True])
async def test_a_mirror_that_is_killed_is_completed_by_the_next(rig, number, passes):
    """The process itself, by SIGKILL, while a request is on its way."""
    async with rig.proxied() as proxy:
        words = ["mirror", "-d", str(rig.place.output), "--set", f"output.mirror={rig.url}"]
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "asyncexport", *words, cwd=ROOT)

        def kill(call):
            if call.number == number and call.has_passed == passes:
                process.send_signal(signal.SIGKILL)
                return Fault.LOST if passes else Fault.DROPPED
            return Fault.NONE

        proxy.fault = kill
        assert await process.wait() == -signal.SIGKILL
    uploaded, already, *others = await rig.counts()
    assert (uploaded + already, others) == (4, [0, 0])
    rig.check_complete()


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("words", "first"), [(("mirror",), 2), (("mirror",), 0), (("mirror", "--check"), 0)])
async def test_a_signal_ends_the_command_even_if_the_store_does_not_answer(rig, name, words, first):
    """With the exit code of the signal; the next mirror continues."""
    async with rig.proxied() as proxy:
        more = ["-d", str(rig.place.output), "--set", f"output.mirror={rig.url}"]
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "asyncexport", *words, *more, cwd=ROOT)

        def stall(call):
            if call.number < first:
                return Fault.NONE
            if call.number == first:
                process.send_signal(name)
            return Fault.STALLED

        proxy.fault = stall
        assert await process.wait() == {signal.SIGINT: Exit.INTERRUPTED, signal.SIGTERM: Exit.TERMINATED}[name]
    uploaded, already, *others = await rig.counts()
    assert (uploaded + already, others) == (4, [0, 0])


@pytest.mark.parametrize("damage", [b"", b"\n\nx", b"0" * 20, b"\xff" * 40 + b"\n" + b"z" * 32 + b"\n"])
async def test_a_damaged_memory_costs_only_requests(rig, damage):
    """The file of objects that were found to be right is cut, or holds something else."""
    await rig.mirrored()
    path = rig.place.output / LEDGER_FOLDER / FILE_NAME
    path.write_bytes(path.read_bytes()[:50] + damage)
    assert await rig.counts() == (0, 4, 0, 0)
    async with rig.proxied() as proxy:
        assert await rig.counts() == (0, 4, 0, 0)
        assert len(proxy.calls) == 1


async def test_the_memory_of_replaced_objects_is_tidied(rig, monkeypatch):
    """It does not grow for ever."""
    monkeypatch.setattr("asyncexport.mirror.seen_file.SPARE_LINES", 5)
    for revision in range(1, 9):
        await rig.place.stored(Arrival((1, 2), events(5000 + revision, 7), revision=revision))
        await rig.mirrored()
    lines = (rig.place.output / LEDGER_FOLDER / FILE_NAME).read_bytes().splitlines()
    assert len(lines) <= 2 * 4 + 5
    async with rig.proxied() as proxy:
        assert await rig.counts() == (0, 4, 0, 0)
        assert len(proxy.calls) == 1


def spoil_as_directory(path: Path) -> None:
    """Put a directory in the place of the file."""
    path.mkdir()


def spoil_as_link(path: Path) -> None:
    """Put a link in the place of the file, through which nothing must be written."""
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("spoil", [spoil_as_directory, spoil_as_link])
async def test_a_mirror_does_not_need_its_memory(rig, caplog, spoil):
    """If the file cannot be read or written, one warning says so, and everything is uploaded."""
    spoil(rig.place.output / LEDGER_FOLDER / FILE_NAME)
    assert await rig.counts() == (4, 0, 0, 0)
    assert await rig.counts() == (0, 4, 0, 0)
    warnings = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == 2
    assert all(f"{FILE_NAME} cannot be" in one for one in warnings)
    assert not (rig.place.output / LEDGER_FOLDER / "elsewhere").exists()
    assert await rig.differences() == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_any_history_ends_with_a_complete_bucket_and_untouched_strangers(rig, seed):
    """Archives come and are replaced, somebody else writes and deletes, requests fail, and mirrors run in between."""
    chance, strangers, revisions = Random(seed), dict[str, bytes](), dict[int, int]()
    async with rig.proxied() as proxy:
        for step in range(30):
            hour = chance.randrange(5)
            match chance.choice(["store", "store", "write", "delete", "mirror", "mirror", "mirror"]):
                case "store":
                    revisions[hour] = revisions.get(hour, -1 if hour > 2 else 0) + 1
                    await rig.place.stored(Arrival((hour, hour + 1), events(step, 3), revision=revisions[hour]))
                case "write":
                    strangers[archive(hour)] = f"of somebody else {step}".encode()
                    obstore.put(rig.store, archive(hour), strangers[archive(hour)])
                case "delete":
                    strangers.pop(archive(hour), None)
                    obstore.delete(rig.store, archive(hour))
                case _:
                    number = len(proxy.calls) + chance.randrange(8)
                    proxy.fault = once(chance.choice(FAULTS), is_number(number))
                    await rig.mirrored()
            objects = rig.objects()
            assert {name: objects.get(name) for name in strangers} == strangers
        proxy.fault = lambda _call: Fault.NONE
        files = rig.files()
        await rig.mirrored()
        assert rig.objects() == files | strangers
        assert {path for kind, path in await rig.differences() if kind != "orphan"} == set(strangers) & set(files)


def large(rig: "MirrorRig", number: int) -> None:
    """Let archives be uploaded in parts, and store one of several parts."""
    rig.limits = replace(rig.limits, single_bytes=1 << 20, upload=20.0)
    # Base64 can be compressed to the bytes that it is made of, and nine of these pieces are more than one part.
    noise = [{"EventType": "click", "evt_x_str": b64encode(os.urandom(1 << 20)).decode()} for _ in range(9)]
    rig.place.store(Arrival((number, number + 1), noise))


@pytest.mark.parametrize("part", ["uploads", "partNumber", "uploadId"])
@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.DROPPED, Fault.LOST, Fault.CUT])
async def test_a_large_upload_that_fails_once_is_repeated(rig, part, fault):
    """A part, or the request that begins or completes the upload."""
    await asyncio.to_thread(large, rig, 5)
    async with rig.proxied() as proxy:
        method = "PUT" if part == "partNumber" else "POST"
        proxy.fault = once(fault, lambda call: call.method == method and part in call.path)
        assert await rig.counts() == (5, 0, 0, 0)
        assert proxy.count("POST") >= 2
    rig.check_complete()


def completes(call: Call) -> bool:
    """Whether a request completes an upload in parts."""
    return call.method == "POST" and "uploadId" in call.path


@pytest.mark.parametrize("code", ["InternalError", "SlowDown", "Other"])
async def test_a_large_upload_that_was_completed_only_by_its_status_is_none(rig, code):
    """S3 may answer the last request with the status 200 and an error."""
    await asyncio.to_thread(large, rig, 5)
    async with rig.proxied() as proxy:
        proxy.fault = lambda call: (
            Answer(200, code) if call.method == "POST" and "uploadId" in call.path else Fault.NONE
        )
        assert await rig.counts() == (4, 0, 1, 0)
    assert archive(5) not in rig.objects()
    (event,) = [one for one in rig.events if one.outcome is Outcome.FAILED]
    assert "cannot upload" in str(event.error)
    assert await rig.counts() == (1, 4, 0, 0)


async def test_a_large_archive_that_was_altered_is_not_uploaded(rig):
    """Its hash is known only at its end, before the upload is completed."""
    await asyncio.to_thread(large, rig, 5)
    path = rig.place.output / archive(5)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    async with rig.proxied() as proxy:
        assert await rig.counts() == (4, 0, 1, 0)
        assert proxy.count("DELETE") == 1, "its parts stay in the bucket"
    assert archive(5) not in rig.objects()
    path.write_bytes(content[:-1])
    assert await rig.counts() == (0, 4, 1, 0)
    assert archive(5) not in [one["path"] for one in obstore.list(rig.store).collect()]
