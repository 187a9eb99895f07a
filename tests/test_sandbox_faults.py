"""What the stand-in service does wrong when it is told to: each fault, seen from the wire."""

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
"""So long without a byte is taken for silence: an answer takes some hundredth of it, on a busy machine some tenth."""


def faulty(*faults, **changes):
    return replace(QUICK, faults=faults, **changes)


class TestChoosing:
    """Which calls a fault befalls; no server."""

    def _befallen(self, fault, calls, *, endpoint="create"):
        faults = SandboxFaultPlan()
        faults.set_faults([fault])
        return [number for number, span in enumerate(calls, 1) if faults.fault_for(endpoint, span) is fault]

    def test_without_conditions_all_of_them(self):
        """Every call at the place, and none elsewhere."""
        assert self._befallen(SandboxFault("create", "503"), [None] * 3) == [1, 2, 3]
        assert self._befallen(SandboxFault("create", "503"), [None] * 3, endpoint="poll") == []

    def test_the_nth_and_every_nth(self):
        """Counted from one."""
        assert self._befallen(SandboxFault("create", "503", nth=3), [None] * 9) == [3]
        assert self._befallen(SandboxFault("create", "503", every=3), [None] * 9) == [3, 6, 9]
        assert self._befallen(SandboxFault("create", "503", since=7), [None] * 9) == [7, 8, 9]

    def test_at_most_so_many(self):
        """Then it is over."""
        assert self._befallen(SandboxFault("create", "503", times=2), [None] * 9) == [1, 2]
        assert self._befallen(SandboxFault("create", "503", every=2, times=2), [None] * 9) == [2, 4]

    def test_a_window_counts_its_own_calls_only(self):
        """A call about another range is passed over; ranges that only touch share nothing."""
        calls = [(0.0, 10.0), (10.0, 20.0), (15.0, 25.0), (20.0, 30.0), None, (19.0, 20.0)]
        assert self._befallen(SandboxFault("create", "503", window=Range(10, 20)), calls) == [2, 3, 6]
        assert self._befallen(SandboxFault("create", "503", window=Range(10, 20), nth=2), calls) == [3]

    def test_chance_is_drawn_from_the_seed(self):
        """A tenth of the calls, the same ones each time, others for another seed."""
        fault = SandboxFault("create", "503", chance=0.1, seed=4)
        found = self._befallen(fault, [None] * 1000)
        assert found == self._befallen(fault, [None] * 1000)
        assert found != self._befallen(replace(fault, seed=5), [None] * 1000)
        assert 60 < len(found) < 140

    def test_two_faults_by_chance_are_independent(self):
        """Those of one seed do not befall the same calls."""
        first, second = (
            self._befallen(SandboxFault("create", what, chance=0.1), [None] * 1000) for what in ("503", "502")
        )
        assert len(set(first) & set(second)) < 30

    def test_the_first_of_two_has_the_call(self):
        """The other counts it, and keeps its own times."""
        first, second = SandboxFault("create", "503", nth=1), SandboxFault("api", "reset", times=1)
        faults = SandboxFaultPlan()
        faults.set_faults([first, second])
        assert [faults.fault_for("create") for _ in range(3)] == [first, second, None]

    def test_faults_that_stay_go_on_counting(self):
        """And one that was taken away and comes back begins anew."""
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
    """Faults as text, and the table of them."""

    def test_as_text(self):
        """WHERE:WHAT and options."""
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
    def test_what_is_no_fault_is_refused(self, text, said):
        """With the nearest there is."""
        with pytest.raises(ValueError, match=re.escape(said)):
            SandboxFault.parse(text)

    def test_the_table_has_every_fault(self):
        """What `--show-faults` prints is what there is, each with the places where it can be."""
        rows = re.findall(r"^(\S+)  +(\S+)  +\S", table(), flags=re.MULTILINE)
        told = {what: where for what, where in rows if what in PLACES}
        assert set(told) == set(PLACES)
        for what, where in told.items():
            assert set(WHERE[where]) <= set(PLACES[what])

    def test_the_table_has_every_option(self):
        """Whoever is told of `nth=3` finds there what else may stand in its place, and without what it is."""
        told = re.findall(r"^(\w+)=\S+ +\S", table(), flags=re.MULTILINE)
        assert sorted(told) == sorted(
            field.name for field in fields(SandboxFault) if field.name not in ("where", "what")
        )


ENDS: list[tuple[str, str, int, str]] = [
    # what, how it ends, status, what is there of the body
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
async def test_how_an_answer_goes_wrong(where, what, ended, status, part):
    """A call of the API and a download break in the same way, and only once: the next is whole."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END) if where == "download" else "/operations/v1"
        whole = await call.get(link)
        box.behave(faulty(SandboxFault(where, what, times=1)))
        got = await call.get(link, backoff=SILENCE_SECONDS)
        assert (got.ended, got.status) == (ended, status)
        expected = {"nothing": 0, "half": len(whole.body) // 2, "all": len(whole.body)}[part]
        body = got.body if what != "garbage" else b""
        assert whole.body.startswith(body)
        assert len(body) == expected
        again = await call.get(link)
        assert (again.status, again.body) == (200, whole.body)


async def test_framings_lie():
    """Content-Length promises more or less than comes; chunks stop without the last one, or with nonsense."""
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


async def test_answers_may_be_whole_and_odd():
    """Another success, a byte order mark, a header longer than many a client reads, ids that are numbers."""
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
async def test_some_box_may_answer_in_place_of_the_store(what, body):
    """With a 200, and with what is no archive."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, END)
        box.behave(faulty(SandboxFault("download", what)))
        got = await call.download(link)
        assert (got.status, got.body[: len(body)], got.values("x-goog-hash")) == (200, body, [])


async def test_an_export_may_be_named_late():
    """COMPLETED is shown once before the id comes."""
    async with serving(faulty(SandboxFault("operation", "late-export-id"))) as box:
        call = Caller(box)
        operation_id = await call.created(START, END)
        shown = [list((await call.poll(operation_id)).data["results"]) for _ in range(3)]
        assert shown == [["expires"], *[["expires", "searchExportId"]] * 2]


async def test_a_part_may_be_given_in_bytes():
    """`after` says where a body is cut."""
    async with serving(faulty(SandboxFault("me", "cut-length", after=7))) as box:
        assert (await Caller(box).get("/me")).body == b'{"email'


async def test_a_drip_is_a_byte_at_a_time():
    """Every `seconds` one, and the body is whole in the end."""
    async with serving(faulty(SandboxFault("me", "drip", seconds=0.001))) as box:
        call, loop = Caller(box), asyncio.get_running_loop()
        began = loop.time()
        got = await call.get("/me")
        assert got.data["role"] == "ADMIN"
        assert loop.time() - began >= 0.001 * len(got.body)


async def test_an_answer_may_be_late():
    """By `seconds`."""
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
async def test_an_answer_may_bear_another_date(fault, off, aged):
    """Off by `seconds`, to the end of 9999 at the most; or old, with an Age that says so."""
    async with serving(faulty(SandboxFault.parse(fault))) as box:
        head = (await Caller(box).get("/me")).head
        date = re.search(r"Date: (.+)", head)
        assert date
        told = parsedate_to_datetime(date[1].strip()).timestamp()
        assert abs(told - min(time.time() + off, 253_402_300_799)) < 60
        assert ("Age: 90" in head) == aged


async def test_an_answer_may_bear_no_date():
    """As some proxies leave it out."""
    async with serving(faulty(SandboxFault("me", "no-date"))) as box:
        got = await Caller(box).get("/me")
        assert (got.status, "Date" in got.head) == (200, False)


@pytest.mark.slow
@pytest.mark.parametrize("status", [202, 302, 400, 401, 403, 404, 408, 409, 429, 499, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("body", ["", "html", "empty"])
async def test_any_status_with_any_body(status, body):
    """As the service says it otherwise, as a page of HTML, or without a word; and nothing is made."""
    async with serving(faulty(SandboxFault("create", str(status), body=body))) as box:
        got = await Caller(box).create(START, END)
        assert got.status == status
        assert (b"<html>" in got.body, got.body == b"") == (body == "html", body == "empty")
        assert box.operations == []
        assert box.refused == (status == 429)


@pytest.mark.parametrize(("kind", "value"), [("seconds", "9"), ("missing", None), ("zero", "0"), ("garbage", "soon")])
async def test_a_429_with_each_retry_after(kind, value):
    """Also without a bucket that is empty."""
    async with serving(faulty(SandboxFault("list", "429", retry_after=kind, seconds=9))) as box:
        assert (await Caller(box).get("/operations/v1")).header("Retry-After") == value


async def test_a_download_s_status_comes_as_xml():
    """The storage host has a way of its own with errors."""
    async with serving(faulty(SandboxFault("download", "503"))) as box:
        call = Caller(box)
        got = await call.download(await call.located(START, END))
        assert got.status == 503
        assert b"<Code>InternalError</Code>" in got.body


@pytest.mark.slow
async def test_pages_that_are_none():
    """HTML, a list in place of an object, 32 MiB of blanks: all with 200."""
    async with serving(QUICK) as box:
        call = Caller(box)
        box.behave(faulty(SandboxFault("me", "html")))
        assert b"<title>Sign in" in (await call.get("/me")).body
        box.behave(faulty(SandboxFault("me", "not-object")))
        assert (await call.get("/me")).data == []
        box.behave(faulty(SandboxFault("me", "huge")))
        assert len((await call.get("/me")).body) > 32 << 20


async def test_a_redirect_tells_who_takes_the_key_along():
    """It leads to another host, which notes whether the key came."""
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
    """The operation is there all the same, and the caller does not know its id."""
    async with serving(faulty(SandboxFault("create", what))) as box:
        call = Caller(box)
        got = await call.create(START, END, backoff=SILENCE_SECONDS)
        assert (got.ended, got.status) == (ended, status)
        assert b"operationId" not in got.raw
        assert len(box.operations) == 1


async def test_a_create_without_an_id():
    """200, an `error`, no operation."""
    async with serving(faulty(SandboxFault("create", "no-id"))) as box:
        got = await Caller(box).create(START, END)
        assert (got.status, list(got.data)) == (200, ["error"])
        assert box.operations == []


@pytest.mark.parametrize("where", ["list", "segments"])
async def test_lists_without_an_end(where):
    """A page that names its own token, or an empty one that promises more; the token is good for going on."""
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


async def test_results_without_a_good_link():
    """No location, one that nobody should follow, one that has expired already."""
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
    """Whether the body is the one that the hash is of."""
    return f"md5={base64.b64encode(hashlib.md5(got.body).digest()).decode()}" in got.values("x-goog-hash")


DAMAGE: list[tuple[str, type[ArchiveError] | None, bool]] = [
    # what, what the exporter makes of the file, whether its hash fits
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
async def test_damage_is_damage(what, error, fits, container):
    """Each file comes as long as it says, and is wrong in one way only; the next fetch is right."""
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


async def test_an_array_may_stay_open():
    """The last byte of the file within the gzip is missing, which closes a JSON array; the gzip and the hash fit."""
    async with serving(faulty(SandboxFault("download", "open-array", nth=1))) as box:
        call = Caller(box)
        link = await call.located(START, END, format="FORMAT_JSON")
        got = await call.download(link)
        assert hash_fits(got)
        assert orjson.loads(gzip.decompress(got.body) + b"]")
        with pytest.raises(CorruptError):
            inspect_pieces([got.body], Format.JSON)
        assert inspect_pieces([(await call.download(link)).body], Format.JSON).rows > 0


async def test_a_neat_cut_is_told_by_the_hash_alone():
    """`cut-line` without hashes is a whole gzip of whole rows: half of them, and nobody can know."""
    async with serving(faulty(SandboxFault("download", "cut-line"), goog_hash="none")) as box:
        call = Caller(box)
        got = await call.download(await call.located(START, END))
        assert got.values("x-goog-hash") == []
        assert 0 < inspect_pieces([got.body], Format.NDJSON).rows < len(box.events(START, END))


def test_all_damage_is_tried():
    """No fault of downloads is left out of these tests."""
    assert {what for what, _, _ in DAMAGE} | {"open-array"} == DAMAGES


async def test_bytes_change_between_two_fetches():
    """The same rows in other bytes: with another ETag, or with the old one, so that parts do not fit together."""
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


async def test_a_part_may_begin_elsewhere():
    """A 206 that is honest about beginning where nobody asked it to."""
    async with serving(faulty(SandboxFault("download", "wrong-range"))) as box:
        call = Caller(box)
        link = await call.located(START, END)
        whole = await call.download(link)
        got = await call.download(link, Range="bytes=100-")
        assert got.status == 206
        assert got.header("Content-Range") == f"bytes 107-{len(whole.body) - 1}/{len(whole.body)}"
        assert got.body == whole.body[107:]


class TestFates:
    """What becomes of operations that are born with a fault."""

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
    async def test_what_the_polls_say(self, what, states):
        """Of operations that would otherwise be done at once."""
        async with serving(faulty(SandboxFault("operation", what))) as box:
            call = Caller(box)
            assert await self._states(call, await call.created(START, END)) == states

    async def test_a_failure_has_a_reason_and_no_results(self):
        """`errorDetails` is filled."""
        async with serving(faulty(SandboxFault("operation", "FAILED"))) as box:
            call = Caller(box)
            shown = (await call.poll(await call.created(START, END))).data
            assert shown["errorDetails"]
            assert shown["results"] is None

    async def test_an_export_that_is_named_but_not_there(self):
        """COMPLETED without an id, or with one that answers 404."""
        async with serving(
            faulty(SandboxFault("operation", "no-export-id", nth=1), SandboxFault("operation", "export-gone"))
        ) as box:
            call = Caller(box)
            results = (await call.poll(await call.created(START, END))).data["results"]
            assert list(results) == ["expires"]
            assert (await call.results(await call.exported(START, END))).status == 404

    async def test_rows_and_names_may_be_those_of_another(self):
        """An id given twice, an export named twice, and one that holds the rows of the range before."""
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

    async def test_odd_states_and_slow_operations_end(self):
        """One shows a state nobody knows until it is done, the other takes ten times as long."""
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

    async def test_an_export_may_have_its_first_rows_alone(self):
        """So many rows as are said, none if nothing is said, and never more than there are; the file is whole."""
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

    async def test_fates_keep_to_their_window(self):
        """One bundle fails whenever it is tried, its neighbours never do."""
        window = Range(START, START + HALF_HOUR)
        async with serving(faulty(SandboxFault("operation", "FAILED", window=window))) as box:
            call = Caller(box)
            starts = [START + number * HALF_HOUR for number in range(3)] * 2
            for start in starts:
                await call.created(start, start + HALF_HOUR)
            assert [one.state for one in box.operations] == ["FAILED", "COMPLETED", "COMPLETED"] * 2


async def test_windows_hold_for_each_step_of_an_export():
    """Create, poll, results and download of one window fail; those of another do not."""
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


async def test_faults_and_truth_go_together():
    """With a third of all calls failing at random, whoever asks again gets every row in the end."""
    faults = (
        SandboxFault("api", "503", chance=0.15, seed=1),
        SandboxFault("any", "reset", chance=0.1, seed=2),
        SandboxFault("download", "cut-length", chance=0.1, seed=3),
    )
    async with serving(replace(QUICK, faults=faults)) as box:
        call = Caller(box)

        async def stubborn(ask_once):
            while True:
                got = await ask_once()
                if got.status == 200 and int(got.header("Content-Length") or 0) == len(got.body):
                    return got

        rows: Counter[bytes] = Counter()
        for start in range(START, END, HALF_HOUR):
            made = (await stubborn(lambda start=start: call.create(start, start + HALF_HOUR))).data["operationId"]
            export_id = (await stubborn(lambda made=made: call.poll(made))).data["results"]["searchExportId"]
            link = call.path((await stubborn(lambda export_id=export_id: call.results(export_id))).data["location"])
            file = (await stubborn(lambda link=link: call.download(link))).body
            rows.update(gzip.decompress(file).splitlines())
        assert rows == Counter(map(row_json, box.events(START, END)))
        assert sum(box.counts.values()) > 16
        assert orjson.loads(next(iter(rows)))["EventStart"]
