"""The fault table: what can go wrong and what asyncexport must do about it.

Each row is one test (`test_fault_table`) and one line of `FAULTS.md`, which is generated from this module:
`python -m tests.fault_table > tests/FAULTS.md`.

A row made of switches exports four bundles from a sandbox that has the fault. It says how the run must end, how many
bundles must be stored by then, how many operations the service must have started, and how many creates must be counted
as possible duplicates. After every row the same command runs again without faults and must end with every row on disk
exactly once.

A row that needs more than switches (a full disk, a certificate, a signal) names a scene, which is a function in
`test_fault_table`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from asyncexport.core.summary import Exit

BUNDLES = 4
"""The number of bundles that each row exports: two hours of data."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault and what must happen.

    Attributes:
        fault: The fault, as FAULTS.md shows it.
        must: What asyncexport must do, as FAULTS.md shows it.
        faults: Faults for the sandbox, as text.
        behaviour: Switches of the sandbox.
        changes: Settings, table by table.
        container: The format of the export.
        code: The exit code of the run.
        stored: The number of bundles on disk after the run.
        exports: The number of operations that the service made for the run.
        duplicates: The number of creates counted as possible duplicates.
        pieces: How many more bundles there are because one was split.
        kept: The number of bundles that are not stored, but whose export the next run downloads.
        reason: A part of the reason of a problem, or of the error.
        scene: The name of a scene, if switches are not enough.
    """

    fault: str
    must: str
    faults: tuple[str, ...] = ()
    behaviour: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    container: str = "ndjson"
    code: Exit = Exit.DONE
    stored: int = BUNDLES
    exports: int = BUNDLES
    duplicates: int = 0
    pieces: int = 0
    kept: int = 0
    reason: str = ""
    scene: str = ""

    @property
    def name(self) -> str:
        """The name of the test."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.fault).split())


ONE_ATTEMPT: dict[str, dict[str, Any]] = {"retry": {"attempts": 1}}
"""The first counted attempt parks a bundle, so a row with this setting shows that its fault is not counted."""

TWO_ATTEMPTS: dict[str, dict[str, Any]] = {"retry": {"attempts": 2, "before_split": 3}}
"""The second counted attempt parks a bundle instead of splitting it."""

SHORT_TIMEOUTS: dict[str, dict[str, Any]] = {
    "api": {"read_timeout": "500ms", "connect_timeout": "500ms"},
    **ONE_ATTEMPT,
}

SINGLE: dict[str, Any] = {"list_ids": False}
"""Makes the exporter poll operations one by one."""

RETRIED = "retries and stores the bundle; starts no second operation"
NOT_COUNTED = "retries and stores the bundle; counts no attempt and starts no second operation"
POSSIBLE_DUPLICATE = "retries; counts a possible duplicate but no attempt"
COUNTED_DUPLICATE = "retries; counts an attempt and a possible duplicate"
NEW_EXPORT = "starts a new operation for this bundle and stores it"
PARKED = "parks the bundle with the reason and stores the others; no incomplete file has a final name"
KEPT = "stores the others and parks this bundle but remembers its file, which the next run downloads"
REFUSED = "ends the run immediately with a hint; leaves no incomplete file"

FRAMINGS = {"length": "with Content-Length", "chunked": "in chunks", "close": "ended by closing the connection"}
"""How the end of a body is marked, in the words of FAULTS.md."""

WINDOW = "window=2026-01-01T20:30:00Z/2026-01-01T21:00:00Z"
"""The second bundle."""

MINUTE = "window=2026-01-01T20:40:00Z/2026-01-01T20:41:00Z"
"""A minute of the second bundle."""

SPLIT = (
    "after two attempts, splits the bundle into halves, and the half that fails into pieces of 5 minutes; parks the "
    "piece that fails with the reason and stores the others"
)

CUT_ONCE = f"download:cut-length,{WINDOW},times=1,after=300"


def _limits() -> Iterator[Row]:
    for form, fault in (
        ("seconds", "429 with Retry-After in seconds"),
        ("date", "429 with Retry-After as a date"),
        ("missing", "429 without Retry-After"),
        ("zero", "429 with Retry-After: 0"),
        ("negative", "429 with a negative Retry-After"),
        ("garbage", "429 with a Retry-After that is not a number"),
    ):
        yield Row(
            fault,
            f"pauses all requests, then {NOT_COUNTED}",
            faults=(f"create:429,nth=2,retry_after={form}", f"results:429,nth=2,retry_after={form}"),
            changes=ONE_ATTEMPT,
        )
    yield Row(
        "429 with an absurdly long Retry-After",
        "pauses for at most an hour; the run can be stopped meanwhile",
        scene="huge",
    )


def _outages() -> Iterator[Row]:
    for status in (408, 499, 500, 503):
        yield Row(f"{status} from any call", NOT_COUNTED, faults=(f"api:{status},times=6",), changes=ONE_ATTEMPT)
    for status in (502, 504):
        yield Row(
            f"{status} from a create",
            f"{POSSIBLE_DUPLICATE}: a gateway may have forwarded the request",
            faults=(f"create:{status},nth=2",),
            changes=ONE_ATTEMPT,
            duplicates=1,
        )
    yield Row("an outage of an hour in mid-run", "takes longer, but loses no bundle", scene="outage")
    yield Row("connections refused in mid-run", NOT_COUNTED, scene="refused")
    yield Row(
        "a host name that cannot be resolved",
        "retries for `[retry] outage`, then ends the run with a hint; leaves no incomplete file",
        scene="unresolvable",
    )


def _connections() -> Iterator[Row]:
    for what, fault in (
        ("reset", "a connection reset before the response head"),
        ("close", "a connection closed without an answer"),
        ("cut-head", "half a response head, then a closed connection"),
        ("stall", "no answer at all"),
        ("stall-head", "half a response head, then nothing more"),
    ):
        yield Row(
            f"{fault}, to a create",
            POSSIBLE_DUPLICATE,
            faults=(f"create:{what},nth=2",),
            changes=SHORT_TIMEOUTS,
            duplicates=1,
        )
        yield Row(f"{fault}, to a results call", NOT_COUNTED, faults=(f"results:{what},nth=2",), changes=SHORT_TIMEOUTS)
        yield Row(f"{fault}, to a list", NOT_COUNTED, faults=(f"list:{what},nth=2",), changes=SHORT_TIMEOUTS)
        yield Row(f"{fault}, to a download", RETRIED, faults=(f"download:{what},nth=2",), changes=SHORT_TIMEOUTS)
    for what, fault in (("reset-body", "a connection reset in mid-reply"), ("cut-length", "a reply cut short")):
        yield Row(
            f"{fault}, to a results call",
            NOT_COUNTED,
            faults=(f"results:{what},nth=2,after=5",),
            changes=ONE_ATTEMPT,
        )
        yield Row(f"{fault}, to a list", NOT_COUNTED, faults=(f"list:{what},nth=2,after=5",), changes=ONE_ATTEMPT)


BODIES = {
    "garbage": "bytes that are not HTTP",
    "html": "an HTML page",
    "empty": "an empty body",
    "huge": "a body of 32 MiB",
    "broken-json": "broken JSON",
    "not-object": "JSON that is not an object",
}


def _replies() -> Iterator[Row]:
    yield Row(
        "an error that repeats the API key in another spelling",
        f"masks it in every message, event, ledger and file; {NOT_COUNTED}",
        scene="echo",
    )
    for what, fault in BODIES.items():
        yield Row(
            f"{fault}, to a create",
            f"{COUNTED_DUPLICATE}: the service may have started an operation",
            faults=(f"create:{what},nth=2",),
            # For these the sandbox makes an operation before it garbles the answer.
            exports=BUNDLES + (what in ("huge", "broken-json")),
            duplicates=1,
        )
        yield Row(f"{fault}, to a list", NOT_COUNTED, faults=(f"list:{what},nth=2",), changes=ONE_ATTEMPT)
        yield Row(
            f"{fault}, to a poll",
            NOT_COUNTED,
            faults=(f"poll:{what},nth=2",),
            behaviour=SINGLE,
            changes=ONE_ATTEMPT,
        )
        yield Row(f"{fault}, to a results call", RETRIED, faults=(f"results:{what},nth=2",))
    yield Row(
        "200 without an operation id, to a create",
        COUNTED_DUPLICATE,
        faults=("create:no-id,nth=2",),
        duplicates=1,
    )
    for what in ("503", "403", "429", "garbage", "html", "empty", "not-object"):
        yield Row(
            f"{BODIES.get(what, what)}, to /me, which reports the key's organisation",
            "logs it and continues; the next run asks again",
            faults=(f"me:{what}",),
            changes=ONE_ATTEMPT,
        )
    yield Row(
        "401, to /me, which reports the key's organisation",
        "ends the run immediately with exit code 6 and a hint; leaves no incomplete file",
        faults=("me:401",),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=0,
    )
    yield Row(
        "201 or 202 instead of 200",
        "accepts it like any other success",
        faults=("api:accepted",),
        changes=ONE_ATTEMPT,
    )
    yield Row("a reply behind a byte order mark", "reads it", faults=("api:bom",), changes=ONE_ATTEMPT)
    yield Row("ids that are JSON numbers", "uses them as they are", behaviour={"ids": "numbers"}, changes=ONE_ATTEMPT)
    yield Row("a header of 20 KB in any reply", "reads it", faults=("any:long-header",), changes=ONE_ATTEMPT)
    yield Row("200 without a location, to a results call", RETRIED, faults=("results:no-location,nth=2",))
    yield Row(
        "a location that is not https",
        f"does not follow it; {RETRIED}",
        faults=("results:unsafe-location,nth=2",),
    )
    yield Row(
        "a redirect of a create",
        f"never follows it with the key; {REFUSED}",
        faults=("create:redirect",),
        code=Exit.USAGE,
        stored=0,
        exports=0,
        reason="redirects to another URL",
    )


def _refusals() -> Iterator[Row]:
    yield Row(
        "one create refused (400) while others are accepted",
        PARKED,
        faults=("create:400,nth=3",),
        code=Exit.PARTIAL,
        stored=3,
        exports=3,
        reason="400",
    )
    for status in (400, 404):
        yield Row(
            f"every create refused ({status})",
            "stops the export after four refusals of different bundles; leaves no incomplete file",
            faults=(f"create:{status}",),
            code=Exit.USAGE,
            stored=0,
            exports=0,
            reason=str(status),
        )
        yield Row(
            f"creates refused ({status}) for data older than the service keeps",
            "tries the newest bundle, which is accepted; parks the refused bundles and stores the others",
            faults=(f"create:{status},window=2026-01-01T20:00:00Z/2026-01-01T21:30:00Z",),
            code=Exit.PARTIAL,
            stored=1,
            exports=1,
            reason=str(status),
        )
    for body, form in (("json", "JSON"), ("html", "an HTML page"), ("empty", "an empty body")):
        for where, call in (
            ("create", "creates"),
            ("results", "results calls"),
            ("download", "downloads"),
            ("poll", "polls"),
        ):
            yield Row(
                f"403 to {call} for a while, as {form}",
                f"pauses these requests, then {NOT_COUNTED}",
                faults=(f"{where}:403,times=3,body={body}",),
                behaviour=SINGLE if where == "poll" else {},
                changes=ONE_ATTEMPT,
            )
    for where, call, exports in (("results", "results calls", BUNDLES), ("download", "downloads", BUNDLES)):
        yield Row(
            f"403 to all {call} although the key is valid",
            "stops the export after a quarter of an hour; the next run downloads the finished files",
            faults=(f"{where}:403",),
            code=Exit.USAGE,
            stored=0,
            exports=exports,
            kept=exports,
            reason="403",
        )
        yield Row(
            f"403 to all {call} of one bundle",
            KEPT,
            faults=(f"{where}:403,{WINDOW}",),
            code=Exit.PARTIAL,
            stored=3,
            exports=exports,
            kept=1,
            reason="403",
        )
    yield Row(
        "403 to all creates and to /me",
        "ends the run with exit code 6 after a quarter of an hour",
        faults=("create:403", "me:403"),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=0,
        reason="403",
    )
    yield Row(
        "a key that is refused (401) in mid-run",
        "asks /me for confirmation, then ends the run with exit code 6 and sends nothing more",
        faults=("results:401", "me:401,since=2"),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=BUNDLES,
        kept=BUNDLES,
        reason="401",
    )
    yield Row(
        "401 from a proxy although the key is valid",
        f"checks the key with /me, then {NOT_COUNTED}",
        faults=("results:401,times=2",),
        changes=ONE_ATTEMPT,
    )
    yield Row(
        "every operation fails in a run of 60 bundles",
        "sends at most 75 creates; every bundle stays at attempt 1",
        scene="night",
    )
    yield Row(
        "503 with a Retry-After",
        f"waits as long as it says, at most an hour, then {NOT_COUNTED}",
        faults=("api:503,times=2,retry_after=seconds",),
        changes=ONE_ATTEMPT,
    )
    yield Row(
        "a host that never answers, for a directory that never had an answer",
        "gives up after `[retry] first_contact` with exit code 5 and a hint",
        scene="first-contact",
    )


def _creates() -> Iterator[Row]:
    for what, fault in (
        ("lost", "a create that succeeded, but whose answer was lost"),
        ("lost-502", "a create that succeeded behind a gateway that answers 502"),
        ("lost-stall", "a create that succeeded, but is never answered"),
    ):
        yield Row(
            fault,
            "starts one more operation and reports a possible duplicate; stores every row once",
            faults=(f"create:{what},nth=2",),
            changes=SHORT_TIMEOUTS,
            exports=BUNDLES + 1,
            duplicates=1,
        )
    its_own = "logs it and starts a new operation; never stores one file as two archives"
    yield Row("an operation id that was already given for another range", its_own, faults=("create:same-id,nth=2",))
    yield Row("an export id that was already given for another range", its_own, scene="other-export")
    yield Row("an operation id that an earlier run got for another range", its_own, scene="same-id")
    for what, fault, must in (
        ("", "", "stores every bundle of both; starts no second operation"),
        ("FAILED", " that fails", "starts one new operation for both bundles and stores both"),
        ("pending", " that never finishes", "parks both bundles at its deadline with the reason and stores the others"),
    ):
        yield Row(f"creates of two exports that get the same operation{fault}", must, scene=f"shared:{what}")


def _operations() -> Iterator[Row]:
    for state in ("FAILED", "ERROR"):
        yield Row(
            f"an operation that ends {state}", NEW_EXPORT, faults=(f"operation:{state},nth=1",), exports=BUNDLES + 1
        )
        yield Row(
            f"operations of one bundle that always end {state}, with splitting off",
            f"after `[retry] attempts`, {PARKED}",
            faults=(f"operation:{state},{WINDOW}",),
            changes={"retry": {"attempts": 3, "before_split": 4}},
            code=Exit.PARTIAL,
            stored=3,
            exports=BUNDLES + 2,
            reason="failed",
        )
        yield Row(
            f"operations over one minute that always end {state}",
            SPLIT,
            faults=(f"operation:{state},{MINUTE}",),
            code=Exit.PARTIAL,
            pieces=3,
            stored=6,
            exports=12,
            reason="failed",
        )
        yield Row(
            f"operations over half an hour that always end {state}",
            "splits the bundle down to pieces of 5 minutes, with two attempts for each; parks the six pieces with the "
            "reason and stores the others",
            faults=(f"operation:{state},{WINDOW}",),
            code=Exit.PARTIAL,
            pieces=5,
            stored=3,
            exports=3 + 18,
            reason="failed",
        )
    yield Row(
        "COMPLETED without an export id",
        f"polls the operation by its id; if the export id is still missing after a minute, {NEW_EXPORT}",
        faults=("operation:no-export-id,nth=1",),
        # At the deadline the first such answer is believed.
        changes={"polling": {"operation_deadline": "600ms"}},
        exports=BUNDLES + 1,
    )
    yield Row(
        "COMPLETED whose export id appears one poll later",
        "polls again and stores the bundle; counts no attempt and starts no second operation",
        faults=("operation:late-export-id",),
    )
    yield Row(
        "an operation in an unknown state that then completes",
        "treats it as running and stores the bundle; counts no attempt and starts no second operation",
        faults=("operation:odd-state",),
        changes=ONE_ATTEMPT,
    )
    for what, fault in (
        ("pending", "an operation that never finishes"),
        ("odd-for-ever", "an operation that stays in an unknown state"),
    ):
        yield Row(
            fault,
            f"at its deadline, {PARKED}; the next run polls it once more",
            faults=(f"operation:{what},nth=1",),
            changes={"polling": {"operation_deadline": "1500ms"}},
            code=Exit.PARTIAL,
            stored=3,
            reason="deadline",
        )
    yield Row(
        "an operation that is 404 right after its create",
        "believes it only if a second poll a minute later gets a 404 too",
        faults=("operation:unknown-first",),
        behaviour=SINGLE,
        # At the deadline it is polled in any case, which is sooner than a minute here.
        changes={"polling": {"operation_deadline": "600ms"}, **ONE_ATTEMPT},
    )
    yield Row(
        "an operation that becomes 404 and stays so",
        f"after the second 404, {NEW_EXPORT}",
        faults=("operation:forgotten,nth=1",),
        behaviour={**SINGLE, "operation_seconds": 0.3},
        changes={"polling": {"operation_deadline": "1500ms", "min_interval": "20ms"}},
        exports=BUNDLES + 1,
    )
    yield Row(
        "an export that is gone (404) when its signed URL is requested",
        f"after the second 404, {NEW_EXPORT}",
        faults=("operation:export-gone,nth=1",),
        exports=BUNDLES + 1,
    )
    yield Row("a single 404, to a results call", RETRIED, faults=("results:404,nth=2",))


def _lists() -> Iterator[Row]:
    for order, shown in (("newest", "newest first"), ("oldest", "oldest first"), ("shuffled", "in random order")):
        yield Row(
            f"a list of operations, {shown}, with 250 old ones of other clients",
            "finds finished operations in the list or by single polls",
            behaviour={"list_order": order, "old_operations": 250},
            changes=ONE_ATTEMPT,
        )
    for name, behaviour, fault in (
        ("without ids", {"list_ids": False}, ()),
        ("with those of other clients mixed in", {"foreign_per_operation": 40}, ()),
        ("that has only the newest operation", {"list_reaches": 1}, ()),
        ("whose items move between pages", {"list_moves": True, "foreign_per_operation": 60}, ()),
        ("that repeats its pagination token", {"foreign_per_operation": 60}, ("list:repeated-token",)),
        ("with empty pages", {}, ("list:empty-page",)),
        ("that is refused (403)", {}, ("list:403",)),
        ("that is refused (404)", {}, ("list:404",)),
    ):
        yield Row(
            f"a list of operations {name}",
            "does not treat a missing operation as failed; polls operations singly if the list does not help",
            faults=fault,
            behaviour=behaviour,
            changes=ONE_ATTEMPT,
        )


def _signed_urls() -> Iterator[Row]:
    for status in (400, 403):
        for wording in ("old", "new"):
            yield Row(
                f"an expired signed URL ({status}, {wording} wording)",
                "requests a fresh signed URL, never a new operation",
                faults=("download:expired,nth=2",),
                behaviour={"expired_link": status, "expired_wording": wording},
            )
    yield Row(
        "a signed URL that has expired before it arrives",
        "requests a fresh signed URL",
        faults=("results:dead-link,nth=2",),
    )
    for status in (403, 404, 429, 500, 503):
        yield Row(f"{status} from the storage host", RETRIED, faults=(f"download:{status},nth=2",))
    yield Row("a redirect of a download", f"does not follow it; {RETRIED}", faults=("download:redirect,nth=2",))


def _downloads() -> Iterator[Row]:
    for framing in ("length", "chunked", "close"):
        yield Row(
            f"a body cut short, {FRAMINGS[framing]}",
            f"detects it; {RETRIED}",
            faults=(f"download:cut-{framing},nth=2",),
            behaviour={"framing": framing},
        )
        yield Row(
            f"a body cut short every time, {FRAMINGS[framing]}, without a hash, with splitting off",
            PARKED,
            faults=(f"download:cut-{framing},{WINDOW}",),
            behaviour={"framing": framing, "goog_hash": "none", "etag": False},
            changes=TWO_ATTEMPTS,
            code=Exit.PARTIAL,
            stored=3,
            exports=BUNDLES + 1,
        )
    for what, fault in (
        ("reset-body", "a connection reset in the middle of a download"),
        ("long-length", "a Content-Length that is too long"),
        ("short-length", "a Content-Length that is too short"),
        ("bad-chunk", "an invalid chunk"),
        ("garbage", "bytes that are not HTTP, to a download"),
        ("html", "an HTML page instead of a file"),
        ("truncated", "truncated gzip of the promised length"),
        ("corrupt", "a wrong byte in the middle"),
        ("bad-crc", "gzip with a wrong CRC"),
        ("bad-size", "gzip with a wrong size"),
        ("trailing", "extra bytes after the end of the gzip"),
        ("cut-line", "NDJSON cut at the end of a line, with the hash of the complete file"),
        ("cut-row", "NDJSON cut within its last line"),
        ("wrong-hash", "an x-goog-hash that does not match"),
    ):
        yield Row(fault, f"detects it; {RETRIED}", faults=(f"download:{what},nth=2",))
        if what in ("truncated", "corrupt", "bad-crc", "bad-size", "trailing", "cut-row"):
            yield Row(
                f"{fault}, every time and without a hash, with splitting off",
                PARKED,
                faults=(f"download:{what},{WINDOW}",),
                behaviour={"goog_hash": "none"},
                changes=TWO_ATTEMPTS,
                code=Exit.PARTIAL,
                stored=3,
                exports=BUNDLES + 1,
            )
    yield Row(
        "truncated gzip, every time for one minute and without a hash",
        SPLIT,
        faults=(f"download:truncated,{MINUTE}",),
        behaviour={"goog_hash": "none"},
        code=Exit.PARTIAL,
        pieces=3,
        stored=6,
        exports=12,
    )
    yield from _wrong_bodies()
    for container in ("ndjson", "csv"):
        yield Row(
            f"an HTML page instead of a file, every time and without a hash ({container})",
            KEPT,
            faults=(f"download:html,{WINDOW}",),
            behaviour={"goog_hash": "none"},
            changes=TWO_ATTEMPTS,
            container=container,
            code=Exit.PARTIAL,
            stored=3,
            kept=1,
        )
    for container in ("ndjson", "csv", "json"):
        yield Row(
            f"a few kilobytes that inflate to a row of 96 MiB without an end ({container})",
            f"reads it in pieces and never keeps the row in memory; {RETRIED}",
            faults=("download:endless-row,nth=2",),
            container=container,
        )
    yield Row(
        "a JSON array that is not closed",
        f"detects it; {RETRIED}",
        faults=("download:open-array,nth=2",),
        container="json",
    )
    from_the_start = "downloads the file from the start"
    yield Row(
        "a cut download that can be resumed",
        "requests the rest with Range and If-Range; checks the hash of the complete file",
        faults=(CUT_ONCE,),
    )
    yield Row("a cut download whose Range is ignored", from_the_start, faults=(CUT_ONCE,), behaviour={"ranges": False})
    yield Row(
        "after a cut, other bytes with another ETag",
        from_the_start,
        faults=(CUT_ONCE, f"download:changed,{WINDOW},nth=2"),
    )
    yield Row(
        "after a cut, a range that begins elsewhere than requested",
        from_the_start,
        faults=(CUT_ONCE, f"download:wrong-range,{WINDOW}"),
    )
    yield Row(
        "after a cut, other bytes with the same ETag",
        f"detects that the parts do not fit together; {from_the_start}",
        faults=(CUT_ONCE, f"download:changed-quietly,{WINDOW},nth=2"),
    )


def _wrong_bodies() -> Iterator[Row]:
    """Bodies that a proxy sends with status 200, and intact files with the rows of another bundle."""
    twice = f"believes it only if a second download some time later, from a fresh signed URL, is the same; {RETRIED}"
    for what, fault, container in (
        ("empty", "an empty body", "ndjson"),
        ("empty", "an empty body", "csv"),
        ("newline", "only a line feed", "ndjson"),
        ("not-object", "`[]`", "json"),
    ):
        yield Row(
            f"200 with {fault} and without a hash, instead of a file ({container})",
            twice,
            faults=(f"download:{what},nth=2",),
            changes=ONE_ATTEMPT,
            container=container,
        )
    for what, fault, container in (
        ("ok", "200 with `OK`, instead of a file (csv)", "csv"),
        ("error-object", '200 with `{"error": …}`, instead of a file (ndjson)', "ndjson"),
        ("ok", "200 with `OK`, instead of a file (ndjson)", "ndjson"),
        ("error-object", '200 with `{"error": …}`, instead of a file (json)', "json"),
    ):
        yield Row(
            fault,
            f"detects that it is not an export; {RETRIED}",
            faults=(f"download:{what},nth=2",),
            changes=TWO_ATTEMPTS,
            container=container,
        )
        yield Row(
            f"{fault}, every time",
            "stops the export after three in a row: the field names it knows may be outdated; starts no new operation",
            faults=(f"download:{what}",),
            container=container,
            code=Exit.USAGE,
            stored=0,
            kept=BUNDLES,
            reason="is not",
        )
        yield Row(
            f"{fault}, every time for one bundle",
            "stores the others; after three in a row, parks this bundle but remembers its file for the next run",
            faults=(f"download:{what},{WINDOW}",),
            container=container,
            code=Exit.PARTIAL,
            stored=3,
            kept=1,
            reason="is not",
        )
    for container in ("ndjson", "json", "csv"):
        yield Row(
            f"a complete file with the rows of another range ({container})",
            f"refuses it because of its EventStart; immediately {NEW_EXPORT}",
            faults=("operation:other-rows,nth=2",),
            container=container,
            exports=BUNDLES + 1,
        )
    yield Row(
        "a complete file with the rows of another range, every time for one bundle, with splitting off",
        PARKED,
        faults=(f"operation:other-rows,{WINDOW}",),
        changes={"retry": {"attempts": 4, "before_split": 5}},
        code=Exit.PARTIAL,
        stored=3,
        exports=BUNDLES + 3,
        reason="rows belong to another range",
    )
    yield Row(
        "every file has rows whose EventStart is outside its range",
        "drops this check after three in a row, also in later runs and in `verify`, until a file has the right rows",
        scene="other-rows",
    )


def _containers() -> Iterator[Row]:
    whole = "stores an archive with one layer of gzip and every row"
    for delivery, fault in (
        ("members", "gzip of several members"),
        ("nested", "gzip in gzip"),
        ("encoded", "plain rows with Content-Encoding: gzip"),
        ("encoded-gzip", "gzip with Content-Encoding: gzip"),
        ("plain", "a file that a proxy has inflated"),
    ):
        for framing in ("length", "chunked"):
            yield Row(f"{fault}, {FRAMINGS[framing]}", whole, behaviour={"delivery": delivery, "framing": framing})
    for delivery, fault in (("inflated", "inflated"), ("recompressed", "compressed again")):
        yield Row(
            f"a file {fault} on the way, with the hash of the stored file and headers that say so",
            f"accepts it because of its framing and structure; {whole}",
            behaviour={"delivery": delivery, "stored_form": True},
            changes=ONE_ATTEMPT,
        )
        yield Row(
            f"a file {fault} on the way, with the hash of the stored file and no header that says so",
            f"accepts it when a second download is the same; {whole}",
            behaviour={"delivery": delivery},
            changes=TWO_ATTEMPTS,
        )
    for fault, behaviour in (
        ("a plain body without proof that it is complete", {"delivery": "plain"}),
        ("an empty body without proof that it is complete", {"empty": "nothing", "rows_per_hour": 1e-6}),
    ):
        yield Row(
            fault,
            f"does not accept it; {PARKED}",
            behaviour={**behaviour, "framing": "close", "goog_hash": "none"},
            changes=TWO_ATTEMPTS,
            code=Exit.PARTIAL,
            stored=0,
            exports=BUNDLES * 2,
            reason="confirms that it is complete",
        )
    yield Row(
        "a plain body that only its hash proves complete",
        whole,
        behaviour={"delivery": "plain", "framing": "close", "goog_hash": "md5"},
    )
    yield Row(
        "an empty body of the promised length",
        "stores an archive without rows",
        behaviour={"empty": "nothing", "rows_per_hour": 1e-6},
    )
    for file_name in ("../../../outside.gz", "/etc/outside.gz", "a\\..\\b.gz", "n" * 4000):
        yield Row(
            f"a hostile Content-Disposition: `{file_name[:24]}`",
            "takes file names only from the plan; writes nothing outside the output directory",
            behaviour={"file_name": file_name},
        )


def _refreshes() -> Iterator[Row]:
    for name, fault in (
        ("empty", "a refresh that comes back empty"),
        ("half", "a refresh that comes back with half of its rows"),
    ):
        yield Row(
            fault,
            "keeps the archive and parks the bundle with both row counts; later runs do not export it again",
            scene=f"refresh:{name}",
        )

    yield Row(
        "a refresh that comes back with the same rows in other bytes",
        "keeps the archive with its inode and date; the ledger still names the revision that wrote it",
        scene="same-rows",
    )
    yield Row(
        "rows that reach the service after their bundles were exported, later than `settle`",
        "an audit counts the bundles that lack rows and replaces their archives",
        scene="late-rows",
    )


def _slowness() -> Iterator[Row]:
    for what, fault in (
        ("stall-body", "a download that stalls in mid-body"),
        ("stall-head", "a response head that stalls"),
    ):
        yield Row(
            f"{fault}",
            f"gives up after `[api] read_timeout`; {RETRIED}",
            faults=(f"download:{what},nth=2",),
            changes={"api": SHORT_TIMEOUTS["api"]},
        )
    yield Row(
        "a download of one byte at a time",
        "gives up when the download is slower than `[download] min_rate`",
        scene="drip",
    )


def _certificates() -> Iterator[Row]:
    for name, fault in (
        ("untrusted", "an untrusted certificate"),
        ("expired", "an expired certificate"),
        ("wrong-host", "a certificate of another host"),
    ):
        yield Row(fault, f"sends no key; {REFUSED}", code=Exit.UNREACHABLE, scene=f"certificate:{name}")
    yield Row("a certificate authority named in `[api] ca_file`", "trusts it", scene="certificate:named")


def _disk() -> Iterator[Row]:
    full = "ends the run with exit code 8; the same command finishes once there is space"
    not_renamed = "gives no file its final name; ends the run with exit code 8"
    before_requests = "ends the run with exit code 8 before the first request"
    yield Row("a disk that fills up and is then freed (a real small one)", full, scene="small-disk")
    for name, doing in (
        ("part.create", "creating a part file"),
        ("part.write", "writing a part file"),
        ("part.fsync", "flushing a part file"),
        ("rename", "renaming a part file"),
        ("folder.fsync", "flushing a folder"),
        ("ledger.commit", "committing to the ledger"),
        ("definition.write", "writing an export's definition"),
    ):
        yield Row(f"no space left when {doing}", full, scene=f"write:{name}:ENOSPC")
    yield Row("an fsync that fails", not_renamed, scene="write:part.fsync:EIO")
    yield Row("a rename that fails", not_renamed, scene="write:rename:EIO")
    yield Row(
        "a disk without free inodes (a real small one)",
        "ends the run with exit code 8 and says what is missing; the same command finishes once there are some",
        scene="inodes",
    )
    for name, kind in (("no file handles left", "EMFILE"), ("a loop of symbolic links", "ELOOP")):
        yield Row(
            f"{name} when creating a part file",
            "ends the run with exit code 8 and names this cause",
            scene=f"write:part.create:{kind}",
        )
    yield Row("a read-only directory", before_requests, scene="read-only")
    yield Row(
        "a file system that cannot flush folders (EINVAL, ENOTSUP)",
        "warns once and stores everything",
        scene="odd:folder.fsync:before:EINVAL",
    )
    yield Row(
        "a file system without locks (ENOLCK)",
        f"{before_requests} and says what to do",
        scene="odd:lock:before:ENOLCK",
    )
    yield Row(
        "an output directory that disappears in mid-run",
        "ends the run with exit code 8 and says so; does not create the directory again",
        scene="goes-away:directory",
    )
    for what, fault in (("folder", "a folder"), ("link", "a symbolic link")):
        yield Row(
            f"{fault} in the place of an archive",
            "`verify` reports this bundle and continues; `verify --repair` exports it again",
            scene=f"in-place:{what}",
        )


def _ledgers() -> Iterator[Row]:
    before_requests = "ends the run with exit code 7 before the first request"
    damaged = f"{before_requests}; `verify --rebuild` rebuilds the ledger"
    yield Row(
        "a ledger that another program keeps locked",
        "ends the run with exit code 7; loses nothing",
        scene="ledger:busy",
    )
    yield Row("a ledger with flipped bits", damaged, scene="ledger:bits")
    yield Row("a ledger with one flipped bit inside a value", damaged, scene="ledger:value")
    yield Row("a truncated ledger", damaged, scene="ledger:cut")
    yield Row(
        "a ledger of a newer version", "ends the run with exit code 7; does not change the ledger", scene="ledger:newer"
    )
    yield Row("archives without a ledger", damaged, scene="ledger:gone")
    yield Row(
        "an API key of another organisation than that of the data",
        "ends the run with exit code 7 before any create and names both organisations",
        scene="organisation:key",
    )
    yield Row(
        "the API host is changed to one where the key belongs to another organisation, such as the sandbox",
        "ends the run with exit code 7 before any create and names both organisations",
        scene="organisation:host",
    )
    yield Row(
        "a ledger that is older than the archives (from a backup)",
        f"{before_requests} and names such archives; `verify --adopt` adds them to the ledger",
        scene="ledger:older",
    )
    yield Row(
        "a ledger that disappears in mid-run", "ends the run with exit code 7 and says so", scene="goes-away:ledger"
    )
    yield Row(
        "a symbolic link in the place of the lock file",
        "ends the run with exit code 8; does not touch the target of the link",
        scene="linked:lock",
    )


def _clocks() -> Iterator[Row]:
    settled = "uses the service's clock to decide what is settled"
    yield Row("a host clock that is a day fast", settled, scene="clock:-86400")
    yield Row("a host clock that is a day slow", settled, scene="clock:86400")
    stops = "ends the run with exit code 2 and both times; exports nothing unless `[api] clock` says which to trust"
    yield Row("a host clock that is three days fast", stops, scene="far:259200")
    yield Row("a host clock that is a month slow", stops, scene="far:-2592000")
    for where, which in (("list", "the first answer"), ("poll", "an answer in mid-run")):
        yield Row(
            f"{which} with a date of another year",
            "ignores this date, since other answers contradict it",
            faults=(f"{where}:wrong-date,times=1,seconds=99999999",),
            behaviour=SINGLE,
        )
    yield Row(
        "cached answers with an Age header and yesterday's date",
        "does not use their dates",
        faults=("api:old-date,seconds=-80000",),
    )
    yield Row(
        "an archive exported by a fast clock before its data was settled",
        "lists it in `status` and exports it again, once, when it is settled",
        scene="early",
    )
    yield Row("a host clock that stands still from night to night", "asks the service for the time", scene="still")
    yield Row(
        "a clock that jumps by a year between two runs",
        "keeps the budget's level within its bounds and continues",
        scene="jump",
    )


def _users() -> Iterator[Row]:
    yield Row("two runs at the same time", "the second ends with exit code 4 and names the first", scene="two")
    yield Row(
        "a run that is killed while a nightly run waits for it",
        "the nightly run resumes what the killed one has left; only a create in flight may be sent twice",
        scene="joined",
    )
    yield Row(
        "two runs at the same time on a file system whose locks do nothing",
        "warns that locks do nothing; the second run, or one of the two at its next ledger row, ends with exit code 4",
        scene="no-lock",
    )
    yield Row(
        "archives deleted by the user",
        "does not export them again; `verify --repair` does",
        scene="deleted",
    )
    yield Row("SIGINT", "finishes downloads in progress; exit code 130, state saved", scene="signal:SIGINT")
    yield Row("SIGTERM", "finishes downloads in progress; exit code 143, state saved", scene="signal:SIGTERM")
    yield Row("SIGTERM twice", "ends immediately; exit code 143, state saved", scene="signal:SIGTERM:SIGTERM")
    yield Row("stdout closed early", "ends without a traceback; stored bundles stay stored", scene="closed-stdout")


def _monitoring() -> Iterator[Row]:
    for fault, scene in (
        ("the service of `[ping]` refuses the connection", "ping-refused"),
        ("the service of `[ping]` accepts a ping and never answers", "ping-silent"),
        ("the service of `[ping]` answers 503", "ping-503"),
        ("the port of `[metrics] listen` is in use", "port"),
        ("`[metrics] textfile` cannot be written", "textfile"),
    ):
        yield Row(
            fault, "ends as without the fault, at most seconds later; logs one warning", scene=f"monitoring:{scene}"
        )


SECTIONS = {
    "Rate limit": _limits,
    "Outages": _outages,
    "Broken connections": _connections,
    "Unusual replies": _replies,
    "Refusals": _refusals,
    "Lost and shared creates": _creates,
    "Operations": _operations,
    "The list of operations": _lists,
    "Signed URLs and the storage host": _signed_urls,
    "Downloads": _downloads,
    "Compression and framing": _containers,
    "Refreshes": _refreshes,
    "Slow downloads": _slowness,
    "Certificates": _certificates,
    "The disk": _disk,
    "The ledger": _ledgers,
    "Clocks": _clocks,
    "Users and signals": _users,
    "Metrics and pings": _monitoring,
}

ROWS = tuple(row for rows in SECTIONS.values() for row in rows())


OPENING = """\
# Faults and what asyncexport does about them

Each row below is a test: a fault of the service, the network, the disk, the clock or the user, and what asyncexport
must do about it. Unless the row says otherwise, the test exports four bundles (two hours of data) from the sandbox,
which produces the fault. It checks the exit code, the archives on disk and the number of operations that were started.
Then it runs the same command again without the fault, after which every row of data must be on disk exactly once.

Run all rows with `python -m pytest tests/test_fault_table.py`, or some with `-k`, for example `-k Retry-After`.

To turn a fault into a test, add a `Row` to `tests/fault_table.py`: the fault, as a text such as `create:503,nth=2`
(`asyncexport sandbox --show-faults` lists them all) or as a switch of the sandbox, and the expected result. If the
sandbox cannot produce the fault, give the row a scene: a function in `tests/test_fault_table.py`. Then generate this
page again: `python -m tests.fault_table > tests/FAULTS.md`.
"""


def as_markdown() -> str:
    """The text of FAULTS.md."""
    lines = [OPENING]
    for section, rows in SECTIONS.items():
        lines += [f"## {section}", "", "| fault | what asyncexport does |", "|---|---|"]
        lines += [f"| {row.fault} | {row.must} |" for row in rows()] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown(), end="")  # noqa: T201 - generates FAULTS.md
