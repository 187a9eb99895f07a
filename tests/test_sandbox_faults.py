"""The sandbox's faults, as a client sees them."""

import asyncio
import base64
import gzip
import hashlib
import math
import re
import time
import zlib
from collections import Counter
from dataclasses import fields, replace
from email.utils import parsedate_to_datetime

import orjson
import pytest

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Format
from asyncexport.errors import ArchiveError, CorruptError, IncompleteError
from asyncexport.sandbox import SandboxBehaviour, SandboxFault, serving
from asyncexport.sandbox.contents import DAMAGES
from asyncexport.sandbox.faults import PLACES, WHERE, SandboxFaultPlan, table
from asyncexport.sandbox.formats import row_json
from tests.inspecting import inspect_pieces
from tests.sandbox_client import Caller, ask, unchunked

START = 1_779_913_800
HALF_HOUR = 1800
END = START + 4 * HALF_HOUR

QUICK = SandboxBehaviour(operation_seconds=0.0, requests_per_minute=1e6, burst=1_000_000, rows_per_hour=60, quiet=0)

SILENCE_SECONDS = 0.5
"""The time without a byte that counts as silence. An answer takes a hundredth of it, or a tenth on a busy machine."""


def faulty(*faults, **changes):
    return replace(QUICK, faults=faults, **changes)


class TestChoosing:
    """Which calls a fault hits; no server."""

    def _calls_hit(self, fault, calls, *, endpoint="create"):
        faults = SandboxFaultPlan()
        faults.set_faults([fault])
        return [number for number, span in enumerate(calls, 1) if faults.fault_for(endpoint, span) is fault]

    def test_without_conditions_all_calls_are_hit(self):
        """Every call at its place is hit, and no other."""
        assert self._calls_hit(SandboxFault("create", "503"), [None] * 3) == [1, 2, 3]
        assert self._calls_hit(SandboxFault("create", "503"), [None] * 3, endpoint="poll") == []

    def test_the_nth_and_every_nth(self):
        """Calls are counted from one."""
        assert self._calls_hit(SandboxFault("create", "503", nth=3), [None] * 9) == [3]
        assert self._calls_hit(SandboxFault("create", "503", every=3), [None] * 9) == [3, 6, 9]
        assert self._calls_hit(SandboxFault("create", "503", since=7), [None] * 9) == [7, 8, 9]

    def test_a_limited_number_of_calls(self):
        """After `times` calls the fault stops."""
        assert self._calls_hit(SandboxFault("create", "503", times=2), [None] * 9) == [1, 2]
        assert self._calls_hit(SandboxFault("create", "503", every=2, times=2), [None] * 9) == [2, 4]

    def test_a_window_counts_only_its_own_calls(self):
        """Calls about other ranges are ignored; adjacent ranges do not overlap."""
        calls = [(0.0, 10.0), (10.0, 20.0), (15.0, 25.0), (20.0, 30.0), None, (19.0, 20.0)]
        assert self._calls_hit(SandboxFault("create", "503", window=Range(10, 20)), calls) == [2, 3, 6]
        assert self._calls_hit(SandboxFault("create", "503", window=Range(10, 20), nth=2), calls) == [3]

    def test_chance_depends_on_the_seed(self):
        """A tenth of the calls is hit, always the same ones; another seed hits others."""
        fault = SandboxFault("create", "503", chance=0.1, seed=4)
        found = self._calls_hit(fault, [None] * 1000)
        assert found == self._calls_hit(fault, [None] * 1000)
        assert found != self._calls_hit(replace(fault, seed=5), [None] * 1000)
        assert 60 < len(found) < 140

    def test_two_faults_by_chance_are_independent(self):
        """Faults with the same seed do not hit the same calls."""
        first, second = (
            self._calls_hit(SandboxFault("create", what, chance=0.1), [None] * 1000) for what in ("503", "502")
        )
        assert len(set(first) & set(second)) < 30

    def test_the_first_of_two_faults_hits_the_call(self):
        """The other one counts the call, but not as one of its `times`."""
        first, second = SandboxFault("create", "503", nth=1), SandboxFault("api", "reset", times=1)
        faults = SandboxFaultPlan()
        faults.set_faults([first, second])
        assert [faults.fault_for("create") for _ in range(3)] == [first, second, None]

    def test_faults_that_remain_keep_their_counts(self):
        """A fault that was removed and comes back counts from zero."""
        fault, other = SandboxFault("create", "503", nth=2), SandboxFault("me", "reset")
        faults = SandboxFaultPlan()
        faults.set_faults([fault])
        assert faults.fault_for("create") is None
        faults.set_faults([fault, other])
        assert faults.fault_for("create") is fault
        faults.set_faults([])
        faults.set_faults([fault])
        assert faults.fault_for("create") is None


class TestSpelling:
    """Faults as text, and the tables of `--show-faults`."""

    def test_a_fault_is_read_from_text(self):
        """The text is WHERE:WHAT with options."""
        assert SandboxFault.parse("create:503") == SandboxFault("create", "503")
        text = "download:cut-length,chance=0.1,times=5,seed=3,after=100,window=2026-01-01/2026-01-02"
        window = Range(1_767_225_600, 1_767_312_000)
        assert SandboxFault.parse(text) == SandboxFault(
            "download", "cut-length", chance=0.1, times=5, seed=3, after=100, window=window
        )
        assert SandboxFault.parse("api:429,retry_after=date,seconds=5,body=html,every=2").retry_after == "date"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("create", "is not WHERE:WHAT"),
            ("creat:503", "there is no place 'creat' (did you mean 'create'?)"),
            ("create:rest", "there is no fault 'rest' (did you mean 'reset'?)"),
            ("create:600", "there is no fault '600'"),
            ("poll:lost", "is a fault of create, not of poll"),
            ("operation:503", "not of operation"),
            ("create:503,nht=1", "there is no option 'nht' (did you mean 'nth'?)"),
            ("create:503,nth=0", "counted from 1"),
            ("create:503,chance=2", "from 0 to 1"),
            ("create:503,window=2026-01-01", "a window is START/END"),
            ("create:503,nth=x", "invalid literal"),
            ("create:503,body=pdf", "body is one of"),
        ],
    )
    def test_an_invalid_fault_is_refused(self, text, said):
        """The message suggests the nearest name."""
        with pytest.raises(ValueError, match=re.escape(said)):
            SandboxFault.parse(text)

    def test_the_table_has_every_fault(self):
        """`--show-faults` lists exactly the existing faults, each with the places where it is possible."""
        rows = re.findall(r"^(\S+)  +(\S+)  +\S", table(), flags=re.MULTILINE)
        listed = {what: where for what, where in rows if what in PLACES}
        assert set(listed) == set(PLACES)
        for what, where in listed.items():
            assert set(WHERE[where]) <= set(PLACES[what])

    def test_the_table_has_every_option(self):
        """`--show-faults` lists all options."""
        listed = re.findall(r"^(\w+)=\S+ +\S", table(), flags=re.MULTILINE)
        assert sorted(listed) == sorted(
            field.name for field in fields(SandboxFault) if field.name not in ("where", "what")
        )


ENDS: list[tuple[str, str, int, str]] = [
    # what, how the connection ends, status, how much of the body comes
    ("reset", "reset", 0, "nothing"),
    ("close", "eof", 0, "nothing"),
    ("stall", "silence", 0, "nothing"),
    ("garbage", "eof", 0, "nothing"),
    ("cut-head", "eof", 200, "nothing"),
    ("stall-head", "silence", 200, "nothing"),
    ("reset-body", "reset", 200, "half"),
    ("stall-body", "silence", 200, "half"),
    ("cut-length", "eof", 200, "half"),
    ("cut-chunked", "eof", 200, "half"),
    ("cut-close", "eof", 200, "half"),
    ("long-length", "eof", 200, "all"),
    ("short-length", "eof", 200, "all"),
    ("bad-chunk", "eof", 200, "half"),
    ("broken-json", "eof", 200, "half"),
    ("empty", "eof", 200, "nothing"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "ended", "status", "part"), ENDS, ids=[one[0] for one in ENDS])
@pytest.mark.parametrize("where", ["list", "download"])
async def test_a_broken_answer(where, what, ended, status, part):
    """An API call and a download break in the same way, and only once: the next answer is complete."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END) if where == "download" else "/operations/v1"
        whole = await call.get(link)
        box.behave(faulty(SandboxFault(where, what, times=1)))
        got = await call.get(link, wait_seconds=SILENCE_SECONDS)
        assert (got.ended, got.status) == (ended, status)
        expected = {"nothing": 0, "half": len(whole.body) // 2, "all": len(whole.body)}[part]
        body = got.body if what != "garbage" else b""
        assert whole.body.startswith(body)
        assert len(body) == expected
        again = await call.get(link)
        assert (again.status, again.body) == (200, whole.body)


async def test_the_framing_may_be_wrong():
    """Content-Length promises more or less than is sent; chunks stop without the final one or with garbage."""
    async with serving(QUICK) as box:
        call = Caller(box)
        size = len((await call.get("/me")).body)

        async def with_fault(what):
            box.behave(faulty(SandboxFault("me", what)))
            return await call.get("/me")

        assert (await with_fault("cut-length")).header("Content-Length") == str(size)
        assert (await with_fault("long-length")).header("Content-Length") == str(size + 1000)
        assert (await with_fault("short-length")).header("Content-Length") == str(size // 2)
        for what, left in (("cut-chunked", b""), ("bad-chunk", b"zz\r\n")):
            got = await with_fault(what)
            chunks = got.raw.partition(b"\r\n\r\n")[2]
            assert not unchunked(chunks)[1]
            assert left in chunks
        closed = await with_fault("cut-close")
        assert closed.header("Content-Length") is closed.header("Transfer-Encoding") is None


async def test_answers_may_be_complete_but_unusual():
    """Another success status, a byte order mark, a very long header, and ids that are numbers."""
    async with serving(faulty(SandboxFault("create", "accepted"), SandboxFault("me", "bom"))) as box:
        call = Caller(box)
        assert (await call.get("/me")).body.startswith(b"\xef\xbb\xbf{")
        made = await call.create(START, END)
        assert (made.status, list(made.data)) == (202, ["operationId"])
        box.behave(replace(QUICK, ids="numbers"))
        made = await call.create(START, END)
        shown = (await call.poll(str(made.data["operationId"]))).data
        assert shown["id"] == made.data["operationId"]
        assert isinstance(shown["results"]["searchExportId"], int)
        box.behave(faulty(SandboxFault("me", "long-header")))
        assert len((await call.get("/me")).header("Content-Security-Policy") or "") > 16_000


@pytest.mark.parametrize(
    ("what", "body"), [("newline", b"\n"), ("ok", b"OK\n"), ("error-object", b'{"error":'), ("not-object", b"[]\n")]
)
async def test_a_proxy_may_answer_instead_of_the_storage_host(what, body):
    """It sends a 200 with something that is not an archive."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END)
        box.behave(faulty(SandboxFault("download", what)))
        got = await call.download(link)
        assert (got.status, got.body[: len(body)], got.values("x-goog-hash")) == (200, body, [])


async def test_an_export_id_may_come_late():
    """The first COMPLETED answer has no export id."""
    async with serving(faulty(SandboxFault("operation", "late-export-id"))) as box:
        call = Caller(box)
        operation_id = await call.created(START, END)
        shown = [list((await call.poll(operation_id)).data["results"]) for _ in range(3)]
        assert shown == [["expires"], *[["expires", "searchExportId"]] * 2]


async def test_after_says_where_a_body_is_cut():
    """`after` is a number of bytes."""
    async with serving(faulty(SandboxFault("me", "cut-length", after=7))) as box:
        assert (await Caller(box).get("/me")).body == b'{"email'


async def test_a_drip_sends_one_byte_at_a_time():
    """One byte comes every `seconds`, and the body is complete in the end."""
    async with serving(faulty(SandboxFault("me", "drip", seconds=0.001))) as box:
        call, loop = Caller(box), asyncio.get_running_loop()
        began = loop.time()
        got = await call.get("/me")
        assert got.data["role"] == "ADMIN"
        assert loop.time() - began >= 0.001 * len(got.body)


async def test_an_answer_may_be_late():
    """It comes `seconds` late."""
    async with serving(faulty(SandboxFault("me", "late", seconds=0.05))) as box:
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await Caller(box).get("/me")).status == 200
        assert loop.time() - began >= 0.05


@pytest.mark.parametrize(
    ("fault", "off", "aged"),
    [
        ("me:wrong-date,seconds=7200", 7200, False),
        ("me:wrong-date,seconds=-7200", -7200, False),
        ("me:old-date,seconds=-90", -90, True),
        ("me:wrong-date,seconds=1e12", math.inf, False),
    ],
)
async def test_an_answer_may_have_another_date(fault, off, aged):
    """The date is off by `seconds`, at most until the end of 9999, or old with an Age header."""
    async with serving(faulty(SandboxFault.parse(fault))) as box:
        head = (await Caller(box).get("/me")).head
        date = re.search(r"Date: (.+)", head)
        assert date
        shown_date = parsedate_to_datetime(date[1].strip()).timestamp()
        assert abs(shown_date - min(time.time() + off, 253_402_300_799)) < 60
        assert ("Age: 90" in head) == aged


async def test_an_answer_may_have_no_date():
    """Some proxies remove the Date header."""
    async with serving(faulty(SandboxFault("me", "no-date"))) as box:
        got = await Caller(box).get("/me")
        assert (got.status, "Date" in got.head) == (200, False)


@pytest.mark.slow
@pytest.mark.parametrize("status", [202, 302, 400, 401, 403, 404, 408, 409, 429, 499, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", ["", "html", "empty"])
async def test_any_status_with_any_body(status, body):
    """The body is the service's usual error, an HTML page or empty, and no operation is made."""
    async with serving(faulty(SandboxFault("create", str(status), body=body))) as box:
        got = await Caller(box).create(START, END)
        assert got.status == status
        assert (b"<html>" in got.body, got.body == b"") == (body == "html", body == "empty")
        assert box.operations == []
        assert box.refused == (status == 429)


@pytest.mark.parametrize(("kind", "value"), [("seconds", "9"), ("missing", None), ("zero", "0"), ("garbage", "soon")])
async def test_a_429_with_each_retry_after(kind, value):
    """The header does not depend on the bucket."""
    async with serving(faulty(SandboxFault("list", "429", retry_after=kind, seconds=9))) as box:
        assert (await Caller(box).get("/operations/v1")).header("Retry-After") == value


async def test_an_error_of_the_storage_host_is_xml():
    """The storage host has its own form of errors."""
    async with serving(faulty(SandboxFault("download", "503"))) as box:
        call = Caller(box)
        got = await call.download(await call.located(START, END))
        assert got.status == 503
        assert b"<Code>InternalError</Code>" in got.body


@pytest.mark.slow
async def test_a_200_without_the_right_body():
    """The body is HTML, a list instead of an object, or begins with 32 MiB of spaces."""
    async with serving(QUICK) as box:
        call = Caller(box)
        box.behave(faulty(SandboxFault("me", "html")))
        assert b"<title>Sign in" in (await call.get("/me")).body
        box.behave(faulty(SandboxFault("me", "not-object")))
        assert (await call.get("/me")).data == []
        box.behave(faulty(SandboxFault("me", "huge")))
        assert len((await call.get("/me")).body) > 32 << 20


async def test_a_redirect_shows_whether_the_key_is_sent_along():
    """It leads to another host, which counts requests with the key."""
    async with serving(faulty(SandboxFault("me", "redirect"))) as box:
        call = Caller(box)
        got = await call.get("/me")
        assert got.status == 302
        location = got.header("Location") or ""
        assert location.startswith(box.url.replace("127.0.0.1", "localhost"))
        target = location.partition(box.url.rpartition(":")[2])[2]
        await ask(box.url, target)
        assert (box.redirected, box.redirected_with_key) == (1, 0)
        await ask(box.url, target, headers=call.headers)
        assert (box.redirected, box.redirected_with_key) == (2, 1)


@pytest.mark.parametrize(
    ("what", "ended", "status"), [("lost", "reset", 0), ("lost-502", "eof", 502), ("lost-stall", "silence", 0)]
)
async def test_a_create_whose_answer_is_lost(what, ended, status):
    """The operation exists, but the client does not get its id."""
    async with serving(faulty(SandboxFault("create", what))) as box:
        call = Caller(box)
        got = await call.create(START, END, wait_seconds=SILENCE_SECONDS)
        assert (got.ended, got.status) == (ended, status)
        assert b"operationId" not in got.raw
        assert len(box.operations) == 1


async def test_a_create_without_an_id():
    """The answer is a 200 with an `error`, and no operation is made."""
    async with serving(faulty(SandboxFault("create", "no-id"))) as box:
        got = await Caller(box).create(START, END)
        assert (got.status, list(got.data)) == (200, ["error"])
        assert box.operations == []


@pytest.mark.parametrize("where", ["list", "segments"])
async def test_endless_lists(where):
    """A page repeats its own token or is empty with a token; the token leads to the right page."""
    target, items = {"list": ("/operations/v1", "operations"), "segments": ("/segments/v1", "segments")}[where]
    async with serving(QUICK) as box:
        call = Caller(box)
        await call.created(START, END)
        whole = (await call.get(f"{target}?limit=5")).data[items]
        box.behave(faulty(SandboxFault(where, "repeated-token")))
        first = (await call.get(f"{target}?limit=5")).data
        second = (await call.get(f"{target}?limit=5&paginationToken={first['nextPaginationToken']}")).data
        assert first[items] == whole
        assert second["nextPaginationToken"] == first["nextPaginationToken"]
        box.behave(faulty(SandboxFault(where, "empty-page", nth=1)))
        empty = (await call.get(f"{target}?limit=5")).data
        assert empty[items] == []
        rest = (await call.get(f"{target}?limit=5&paginationToken={empty['nextPaginationToken']}")).data
        assert rest[items] == whole


async def test_results_without_a_usable_url():
    """There is no location, an unsafe one, or an expired one."""
    async with serving(QUICK) as box:
        call = Caller(box)
        export_id = await call.exported(START, END)

        async def with_fault(what):
            box.behave(faulty(SandboxFault("results", what)))
            return (await call.results(export_id)).data

        assert "location" not in await with_fault("no-location")
        assert (await with_fault("unsafe-location"))["location"].startswith("http://storage.example.com/")
        dead = call.path((await with_fault("dead-link"))["location"])
        assert b"ExpiredToken" in (await call.download(dead)).body
        box.behave(faulty(SandboxFault("download", "expired", times=1)))
        link = call.path((await call.results(export_id)).data["location"])
        assert [(await call.download(link)).status for _ in range(2)] == [400, 200]


def hash_fits(got):
    """Return whether the hash of the answer matches its body."""
    return f"md5={base64.b64encode(hashlib.md5(got.body).digest()).decode()}" in got.values("x-goog-hash")


DAMAGE: list[tuple[str, type[ArchiveError] | None, bool]] = [
    # what, the exporter's error for the file, whether its hash matches
    ("corrupt", CorruptError, False),
    ("bad-crc", CorruptError, True),
    ("bad-size", CorruptError, True),
    ("truncated", IncompleteError, True),
    ("trailing", CorruptError, True),
    ("cut-line", None, False),
    ("cut-row", CorruptError, True),
    ("endless-row", CorruptError, True),
    ("wrong-hash", None, False),
    ("changed", None, True),
    ("changed-quietly", None, True),
]


@pytest.mark.slow
@pytest.mark.parametrize(("what", "error", "fits"), DAMAGE, ids=[one[0] for one in DAMAGE])
@pytest.mark.parametrize("container", [Format.NDJSON, Format.CSV])
async def test_each_damage_has_its_effect(what, error, fits, container):
    """Each file has the promised length and one kind of damage; the next download is intact."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END, format=f"FORMAT_{container.name}")
        whole = await call.download(link)
        rows = inspect_pieces([whole.body], container).rows
        assert rows == len(box.events(START, END))
        assert hash_fits(whole)
        box.behave(faulty(SandboxFault("download", what, nth=1)))
        got = await call.download(link)
        assert got.header("Content-Length") == str(len(got.body))
        assert hash_fits(got) == fits
        if error is None:
            assert (inspect_pieces([got.body], container).rows == rows) == (what != "cut-line")
        else:
            with pytest.raises(error):
                inspect_pieces([got.body], container)
        assert (await call.download(link)).body == whole.body


async def test_an_array_may_be_unclosed():
    """The last byte within the gzip is missing, which closes a JSON array; gzip and hash are valid."""
    async with serving(faulty(SandboxFault("download", "open-array", nth=1))) as box:
        call = Caller(box)
        link = await call.located(START, END, format="FORMAT_JSON")
        got = await call.download(link)
        assert hash_fits(got)
        assert orjson.loads(gzip.decompress(got.body) + b"]")
        with pytest.raises(CorruptError):
            inspect_pieces([got.body], Format.JSON)
        assert inspect_pieces([(await call.download(link)).body], Format.JSON).rows > 0


async def test_only_the_hash_reveals_a_cut_between_lines():
    """Without hashes, `cut-line` is valid gzip with half of the rows, which no client can notice."""
    async with serving(faulty(SandboxFault("download", "cut-line"), goog_hash="none")) as box:
        call = Caller(box)
        got = await call.download(await call.located(START, END))
        assert got.values("x-goog-hash") == []
        assert 0 < inspect_pieces([got.body], Format.NDJSON).rows < len(box.events(START, END))


def test_every_damage_is_tested():
    """These tests cover every damage."""
    assert {what for what, _, _ in DAMAGE} | {"open-array"} == DAMAGES


async def test_bytes_change_between_two_downloads():
    """The same rows come in other bytes, with another ETag or with the same one, so that parts do not fit together."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END)
        first = await call.download(link)
        for what, same_etag in (("changed", False), ("changed-quietly", True)):
            box.behave(faulty(SandboxFault("download", what)))
            other = await call.download(link)
            assert other.body != first.body
            assert gzip.decompress(other.body) == gzip.decompress(first.body)
            assert (other.header("ETag") == first.header("ETag")) == same_etag
            etag = first.header("ETag") or ""
            rest = await call.download(link, Range="bytes=100-", If_Range=etag)
            assert rest.status == (206 if same_etag else 200)
            if same_etag:
                with pytest.raises(zlib.error):
                    gzip.decompress(first.body[:100] + rest.body)


async def test_a_range_may_begin_elsewhere():
    """The 206 reports where it begins, which is not where the client asked."""
    async with serving(faulty(SandboxFault("download", "wrong-range"))) as box:
        call = Caller(box)
        link = await call.located(START, END)
        whole = await call.download(link)
        got = await call.download(link, Range="bytes=100-")
        assert got.status == 206
        assert got.header("Content-Range") == f"bytes 107-{len(whole.body) - 1}/{len(whole.body)}"
        assert got.body == whole.body[107:]


class TestOperationFaults:
    """Operations with a fault."""

    async def _states(self, call, operation_id, polls=3):
        got = [await call.poll(operation_id) for _ in range(polls)]
        return [one.data["state"] if one.status == 200 else one.status for one in got]

    @pytest.mark.parametrize(
        ("what", "states"),
        [
            ("FAILED", ["FAILED"] * 3),
            ("ERROR", ["ERROR"] * 3),
            ("pending", ["PENDING"] * 3),
            ("odd-for-ever", ["THROTTLED"] * 3),
            ("no-export-id", ["COMPLETED"] * 3),
            ("late-export-id", ["COMPLETED"] * 3),
            ("export-gone", ["COMPLETED"] * 3),
            ("unknown-first", [404, "COMPLETED", "COMPLETED"]),
            ("forgotten", ["COMPLETED", 404, 404]),
            ("slow", ["COMPLETED"] * 3),
            ("odd-state", ["COMPLETED"] * 3),
        ],
    )
    async def test_the_states_that_polls_report(self, what, states):
        """These operations would otherwise be complete immediately."""
        async with serving(faulty(SandboxFault("operation", what))) as box:
            call = Caller(box)
            assert await self._states(call, await call.created(START, END)) == states

    async def test_a_failure_has_a_reason_and_no_results(self):
        """`errorDetails` has a text."""
        async with serving(faulty(SandboxFault("operation", "FAILED"))) as box:
            call = Caller(box)
            shown = (await call.poll(await call.created(START, END))).data
            assert shown["errorDetails"]
            assert shown["results"] is None

    async def test_an_export_may_be_missing(self):
        """The operation is COMPLETED without an export id, or with one that gets a 404."""
        async with serving(
            faulty(SandboxFault("operation", "no-export-id", nth=1), SandboxFault("operation", "export-gone"))
        ) as box:
            call = Caller(box)
            results = (await call.poll(await call.created(START, END))).data["results"]
            assert list(results) == ["expires"]
            assert (await call.results(await call.exported(START, END))).status == 404

    async def test_rows_and_ids_may_be_those_of_another_operation(self):
        """An operation id or export id is given twice, or an export has the rows of the preceding range."""
        async with serving(QUICK) as box:
            call = Caller(box)
            first = await call.created(START, START + HALF_HOUR)
            box.behave(faulty(SandboxFault("create", "same-id")))
            assert await call.created(START + HALF_HOUR, END) == first
            assert len(box.operations) == 1
            box.behave(faulty(SandboxFault("operation", "other-export")))
            second = await call.created(START + HALF_HOUR, END)
            named = [(await call.poll(one)).data["results"]["searchExportId"] for one in (first, second)]
            assert named[0] == named[1]
            box.behave(faulty(SandboxFault("operation", "other-rows")))
            got = await call.download(await call.located(START + HALF_HOUR, START + 2 * HALF_HOUR))
            rows = list(map(orjson.loads, gzip.decompress(got.body).splitlines()))
            assert sorted(map(row_json, rows)) == sorted(map(row_json, box.events(START, START + HALF_HOUR)))

    async def test_unknown_states_and_slow_operations_end(self):
        """One operation has an unknown state until it completes, the other takes ten times as long."""
        behaviour = replace(QUICK, operation_seconds=100.0, operation_sigma=0.0)
        faults = (SandboxFault("operation", "odd-state", nth=1), SandboxFault("operation", "slow", nth=2))
        async with serving(replace(behaviour, faults=faults), clock=lambda: 1_780_000_000.0) as box:
            call = Caller(box)
            odd, slow = [await call.created(START, END) for _ in range(2)]
            assert await self._states(call, odd, 1) == ["THROTTLED"]
            box.skip(101)
            assert await self._states(call, odd, 1) == ["COMPLETED"]
            box.skip(800)
            assert await self._states(call, slow, 1) == ["PENDING"]
            box.skip(100)
            assert await self._states(call, slow, 1) == ["COMPLETED"]

    async def test_an_export_may_have_only_its_first_rows(self):
        """It has `rows` rows, by default none, and at most those that exist; the file is complete."""
        faults = (
            SandboxFault.parse("operation:fewer-rows,rows=7,nth=2"),
            SandboxFault.parse("operation:fewer-rows,nth=3"),
        )
        async with serving(faulty(*faults, SandboxFault("operation", "fewer-rows", rows=10**6))) as box:
            call = Caller(box)
            bodies = [(await call.download(await call.located(START, END))).body for _ in range(3)]
            found = [inspect_pieces([body], Format.NDJSON).rows for body in bodies]
            assert found == [len(box.events(START, END)), 7, 0]
            whole, first, _ = (gzip.decompress(body) for body in bodies)
            assert whole.startswith(first)

    async def test_operation_faults_stay_in_their_window(self):
        """One bundle always fails, the others never."""
        window = Range(START, START + HALF_HOUR)
        async with serving(faulty(SandboxFault("operation", "FAILED", window=window))) as box:
            call = Caller(box)
            starts = [START + number * HALF_HOUR for number in range(3)] * 2
            for start in starts:
                await call.created(start, start + HALF_HOUR)
            assert [one.state for one in box.operations] == ["FAILED", "COMPLETED", "COMPLETED"] * 2


async def test_windows_hold_for_each_step_of_an_export():
    """Create, poll, results call and download of one range fail; those of another do not."""
    window = Range(START, START + HALF_HOUR)
    later = START + HALF_HOUR
    async with serving(QUICK) as box:
        call = Caller(box)
        links = [await call.located(start, start + HALF_HOUR) for start in (START, later)]
        box.behave(
            faulty(*(SandboxFault(where, "503", window=window) for where in ("create", "poll", "results", "download")))
        )
        ids = [(one.id, one.export_id) for one in box.operations]
        assert [(await call.create(start, start + HALF_HOUR)).status for start in (START, later)] == [503, 200]
        assert [(await call.poll(one)).status for one, _ in ids] == [503, 200]
        assert [(await call.results(export)).status for _, export in ids] == [503, 200]
        assert [(await call.download(link)).status for link in links] == [503, 200]
        assert (await call.get("/operations/v1")).status == 200


async def test_a_client_that_retries_gets_every_row():
    """With about a third of all calls failing at random, a client that retries gets every row in the end."""
    faults = (
        SandboxFault("api", "503", chance=0.15, seed=1),
        SandboxFault("any", "reset", chance=0.1, seed=2),
        SandboxFault("download", "cut-length", chance=0.1, seed=3),
    )
    async with serving(replace(QUICK, faults=faults)) as box:
        call = Caller(box)

        async def retried(ask_once):
            while True:
                got = await ask_once()
                if got.status == 200 and int(got.header("Content-Length") or 0) == len(got.body):
                    return got

        rows: Counter[bytes] = Counter()
        for start in range(START, END, HALF_HOUR):
            made = (await retried(lambda start=start: call.create(start, start + HALF_HOUR))).data["operationId"]
            export_id = (await retried(lambda made=made: call.poll(made))).data["results"]["searchExportId"]
            link = call.path((await retried(lambda export_id=export_id: call.results(export_id))).data["location"])
            file = (await retried(lambda link=link: call.download(link))).body
            rows.update(gzip.decompress(file).splitlines())
        assert rows == Counter(map(row_json, box.events(START, END)))
        assert sum(box.counts.values()) > 16
        assert orjson.loads(next(iter(rows)))["EventStart"]
