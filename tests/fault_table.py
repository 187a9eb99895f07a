"""The fault table: what can go wrong, and what must happen then.

Each row is one test (`test_fault_table`) and one line of `FAULTS.md`, which is generated from this module:
`python -m tests.fault_table > tests/FAULTS.md`.

A row made of switches runs four bundles of an export against a sandbox that has the fault. It says how the run must
end, how many bundles are stored by then, how many exports the service made for them, and how many creates are counted
as possible duplicates. Whatever the row, after it the same command runs once more against a service without faults, and
must end with every row on the disk exactly once.

A row that needs more than switches (a full disk, a certificate, a signal) has a scene of its own, told by name; it is
played in `test_fault_table`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from asyncexport.core.summary import Exit

BUNDLES = 4
"""In every row: two hours."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, and what must happen.

    Attributes:
        fault: What goes wrong, as FAULTS.md says it.
        must: What must happen, likewise.
        faults: For the sandbox, as text.
        behaviour: Switches of the sandbox.
        changes: Settings, table by table.
        container: The format of the export.
        code: How the run ends.
        stored: Bundles on the disk by then.
        exports: Operations that the service made for them.
        duplicates: Creates counted as possible duplicates.
        kept: Bundles that are not stored by then, and whose export the next run fetches.
        said: What one of the problems, or the error, says.
        scene: The name of a scene, where switches are not enough.
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
    kept: int = 0
    said: str = ""
    scene: str = ""

    @property
    def name(self) -> str:
        """For pytest."""
        return "-".join("".join(char if char.isalnum() else " " for char in self.fault).split())


ONE_ATTEMPT: dict[str, dict[str, Any]] = {"retry": {"attempts": 1}}
"""Whatever counts against a bundle parks it: a row with this shows that its fault does not count."""

IMPATIENT: dict[str, dict[str, Any]] = {"api": {"read_timeout": "500ms", "connect_timeout": "500ms"}, **ONE_ATTEMPT}

SINGLE: dict[str, Any] = {"list_ids": False}
"""Operations are polled one by one."""

WAITS = "the bundle waits its turn and comes whole; no attempt is counted, no second export is made"
AGAIN = "it is fetched again and comes whole; no second export is made"
ANEW = "a new export is made for that bundle, and comes whole"
PARKED = "the bundle is parked with the reason, the others come; nothing of it is under a final name"
KEPT = "the others come; it is parked with its export, which the next run fetches"
WINDOW = "window=2026-01-01T20:30:00Z/2026-01-01T21:00:00Z"
"""The second bundle."""

CUT_ONCE = f"download:cut-length,{WINDOW},times=1,after=300"

REFUSED = "the run ends at once with a hint; nothing half-made is left"


def _limits() -> Iterator[Row]:
    for form, fault in (
        ("seconds", "429 with Retry-After in seconds"),
        ("date", "429 with Retry-After as a date"),
        ("missing", "429 without Retry-After"),
        ("zero", "429 with Retry-After: 0"),
        ("negative", "429 with a negative Retry-After"),
        ("garbage", "429 with a Retry-After that is no number"),
    ):
        yield Row(
            fault,
            f"everybody waits; then {WAITS}",
            faults=(f"create:429,nth=2,retry_after={form}", f"results:429,nth=2,retry_after={form}"),
            changes=ONE_ATTEMPT,
        )
    yield Row("429 with an absurd Retry-After", "an hour is waited at most, and the run can be stopped", scene="huge")


def _outages() -> Iterator[Row]:
    for status in (408, 499, 500, 503):
        yield Row(f"{status} from any call", WAITS, faults=(f"api:{status},times=6",), changes=ONE_ATTEMPT)
    for status in (502, 504):
        yield Row(
            f"{status} from a create",
            "a gateway may have passed it on: asked again, counted as a possible duplicate",
            faults=(f"create:{status},nth=2",),
            changes=ONE_ATTEMPT,
            duplicates=1,
        )
    yield Row("an outage of an hour in the middle of a run", "it costs time, and not one bundle", scene="outage")
    yield Row("a connection refused while the run goes on", WAITS, scene="refused")
    yield Row("a host that cannot be resolved", f"tried for `[retry] outage`, then {REFUSED}", scene="unresolvable")


def _wire() -> Iterator[Row]:
    for what, fault in (
        ("reset", "a reset before the head"),
        ("close", "a connection closed without an answer"),
        ("cut-head", "half a head"),
        ("stall", "no answer at all"),
        ("stall-head", "half a head, then silence"),
    ):
        yield Row(
            f"{fault}, to a create",
            "asked again with the same attempt, counted as a possible duplicate",
            faults=(f"create:{what},nth=2",),
            changes=IMPATIENT,
            duplicates=1,
        )
        yield Row(f"{fault}, to a results call", WAITS, faults=(f"results:{what},nth=2",), changes=IMPATIENT)
        yield Row(f"{fault}, to a list", WAITS, faults=(f"list:{what},nth=2",), changes=IMPATIENT)
        yield Row(f"{fault}, to a download", AGAIN, faults=(f"download:{what},nth=2",), changes=IMPATIENT)
    for what, fault in (("reset-body", "a reset in mid-body"), ("cut-length", "a reply cut short")):
        yield Row(f"{fault}, of a results call", WAITS, faults=(f"results:{what},nth=2,after=5",), changes=ONE_ATTEMPT)
        yield Row(f"{fault}, of a list", WAITS, faults=(f"list:{what},nth=2,after=5",), changes=ONE_ATTEMPT)


WORDS = {
    "garbage": "garbage on the wire",
    "html": "an HTML page",
    "empty": "an empty body",
    "huge": "a body of 32 MiB",
    "broken-json": "broken JSON",
    "not-object": "JSON that is no object",
}


def _replies() -> Iterator[Row]:
    yield Row(
        "an error that says the API key back, in another spelling",
        f"it is in no message, event, ledger or file; {WAITS}",
        scene="echo",
    )
    for what, fault in WORDS.items():
        yield Row(
            f"{fault}, to a create",
            "it cannot be told whether an export was made: counted as a possible duplicate and as an attempt",
            faults=(f"create:{what},nth=2",),
            # Of these the sandbox makes an operation before it garbles the answer.
            exports=BUNDLES + (what in ("huge", "broken-json")),
            duplicates=1,
        )
        yield Row(f"{fault}, to a list", WAITS, faults=(f"list:{what},nth=2",), changes=ONE_ATTEMPT)
        yield Row(f"{fault}, to a poll", WAITS, faults=(f"poll:{what},nth=2",), behaviour=SINGLE, changes=ONE_ATTEMPT)
        yield Row(f"{fault}, to a results call", AGAIN, faults=(f"results:{what},nth=2",))
    yield Row(
        "200 without an operation id",
        "counted as a possible duplicate and as an attempt; asked again",
        faults=("create:no-id,nth=2",),
        duplicates=1,
    )
    for what in ("503", "403", "429", "garbage", "html", "empty", "not-object"):
        yield Row(
            f"{what} when it is asked whose the key is" if what.isdigit() else f"{WORDS[what]}, to whose the key is",
            "told; the run goes on, and the next one asks again",
            faults=(f"me:{what}",),
            changes=ONE_ATTEMPT,
        )
    yield Row(
        "401 when it is asked whose the key is",
        f"exit code 6: {REFUSED}",
        faults=("me:401",),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=0,
    )
    yield Row(
        "201 or 202 in place of 200",
        "read like any other success",
        faults=("api:accepted",),
        changes=ONE_ATTEMPT,
    )
    yield Row("a reply behind a byte order mark", "it is read", faults=("api:bom",), changes=ONE_ATTEMPT)
    yield Row("ids that are numbers", "they are used as they are", behaviour={"ids": "numbers"}, changes=ONE_ATTEMPT)
    yield Row(
        "a header of 20 KB, in any reply",
        "it is read",
        faults=("any:long-header",),
        changes=ONE_ATTEMPT,
    )
    yield Row("200 without a location", AGAIN, faults=("results:no-location,nth=2",))
    yield Row("a location that is not https", f"never followed: {AGAIN}", faults=("results:unsafe-location,nth=2",))
    yield Row(
        "a redirect of a create",
        f"never followed with the key: {REFUSED}",
        faults=("create:redirect",),
        code=Exit.USAGE,
        stored=0,
        exports=0,
        said="redirects elsewhere",
    )


def _refusals() -> Iterator[Row]:
    yield Row(
        "a create refused (400) while others are taken",
        PARKED,
        faults=("create:400,nth=3",),
        code=Exit.PARTIAL,
        stored=3,
        exports=3,
        said="400",
    )
    for status in (400, 404):
        yield Row(
            f"creates that are all refused ({status})",
            "the export stops after four, of different bundles; nothing half-made is left",
            faults=(f"create:{status}",),
            code=Exit.USAGE,
            stored=0,
            exports=0,
            said=str(status),
        )
        yield Row(
            f"creates refused ({status}) for data outside of retention",
            "the newest bundle is tried, and taken: the refused ones are parked, the others come",
            faults=(f"create:{status},window=2026-01-01T20:00:00Z/2026-01-01T21:30:00Z",),
            code=Exit.PARTIAL,
            stored=1,
            exports=1,
            said=str(status),
        )
    yield Row(
        "a redirect of a create",
        f"never followed with the key: {REFUSED}",
        faults=("create:redirect",),
        code=Exit.USAGE,
        stored=0,
        exports=0,
        said="redirects elsewhere",
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
                f"held back and tried again; {WAITS}",
                faults=(f"{where}:403,times=3,body={body}",),
                behaviour=SINGLE if where == "poll" else {},
                changes=ONE_ATTEMPT,
            )
    for where, call, exports in (("results", "results calls", BUNDLES), ("download", "downloads", BUNDLES)):
        yield Row(
            f"403 to {call} for good, though the key is good",
            "believed after a quarter of an hour: the export stops; what is finished is fetched by the next run",
            faults=(f"{where}:403",),
            code=Exit.USAGE,
            stored=0,
            exports=exports,
            kept=exports,
            said="403",
        )
        yield Row(
            f"403 to {call} of one bundle for good",
            KEPT,
            faults=(f"{where}:403,{WINDOW}",),
            code=Exit.PARTIAL,
            stored=3,
            exports=exports,
            kept=1,
            said="403",
        )
    yield Row(
        "403 to creates and to /me for good",
        "believed after a quarter of an hour: the run ends with exit code 6",
        faults=("create:403", "me:403"),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=0,
        said="403",
    )
    yield Row(
        "a key that is refused (401) in mid-run",
        "confirmed by /me, then the run ends with exit code 6; nothing more is asked",
        faults=("results:401", "me:401,since=2"),
        code=Exit.KEY_REFUSED,
        stored=0,
        exports=BUNDLES,
        kept=BUNDLES,
        said="401",
    )
    yield Row(
        "a box that answers 401, while the key is good",
        f"/me is answered; {WAITS}",
        faults=("results:401,times=2",),
        changes=ONE_ATTEMPT,
    )
    yield Row(
        "every operation fails, in a night of 60 bundles",
        "at most 75 creates, every bundle stays at attempt 1",
        scene="night",
    )
    yield Row(
        "503 with a Retry-After",
        f"waited as it asks, an hour at most; {WAITS}",
        faults=("api:503,times=2,retry_after=seconds",),
        changes=ONE_ATTEMPT,
    )
    yield Row(
        "a host that never answers, in a directory without an answer",
        "given up after `[retry] first_contact`: exit code 5 with a hint",
        scene="first-contact",
    )


def _creates() -> Iterator[Row]:
    for what, fault in (
        ("lost", "a create that succeeded and whose answer was lost"),
        ("lost-502", "a create that succeeded behind a gateway that says 502"),
        ("lost-stall", "a create that succeeded and never answers"),
    ):
        yield Row(
            fault,
            "one more export is made, and told as a possible duplicate; the rows come once",
            faults=(f"create:{what},nth=2",),
            changes=IMPATIENT,
            exports=BUNDLES + 1,
            duplicates=1,
        )
    its_own = "it is told, and a new export is made: there are never two archives of one file"
    yield Row("an operation id that was given for another range before", its_own, faults=("create:same-id,nth=2",))
    yield Row("an export id that was given for another range before", its_own, scene="other-export")
    yield Row("an operation id that an earlier run was given for another range", its_own, scene="same-id")
    for what, fault, must in (
        ("", "", "each bundle comes whole; no second export is made"),
        ("FAILED", " that fails", "a new export is made for both bundles, and comes whole for each"),
        ("pending", " that never finishes", "at its deadline both bundles are parked with the reason, the others come"),
    ):
        yield Row(
            f"creates of two exports that the service answers with one operation{fault}", must, scene=f"shared:{what}"
        )


def _operations() -> Iterator[Row]:
    for state in ("FAILED", "ERROR"):
        yield Row(f"an operation that ends {state}", ANEW, faults=(f"operation:{state},nth=1",), exports=BUNDLES + 1)
        yield Row(
            f"operations of one bundle that always end {state}",
            f"after `[retry] attempts` {PARKED}",
            faults=(f"operation:{state},{WINDOW}",),
            changes={"retry": {"attempts": 3}},
            code=Exit.PARTIAL,
            stored=3,
            exports=BUNDLES + 2,
            said="failed",
        )
    yield Row(
        "COMPLETED without an export id",
        f"asked for singly, and believed when it says so for a minute; then {ANEW}",
        faults=("operation:no-export-id,nth=1",),
        # At the deadline it is believed at once.
        changes={"polling": {"operation_deadline": "600ms"}},
        exports=BUNDLES + 1,
    )
    yield Row("COMPLETED, and the export id comes a poll later", WAITS, faults=("operation:late-export-id",))
    yield Row("a state that nobody has heard of", WAITS, faults=("operation:odd-state",), changes=ONE_ATTEMPT)
    for what, fault in (
        ("pending", "an operation that never finishes"),
        ("odd-for-ever", "an operation in an unknown state for ever"),
    ):
        yield Row(
            fault,
            f"at its deadline {PARKED}; the next run asks for it once more",
            faults=(f"operation:{what},nth=1",),
            changes={"polling": {"operation_deadline": "1500ms"}},
            code=Exit.PARTIAL,
            stored=3,
            said="deadline",
        )
    yield Row(
        "an operation that is 404 right after its create",
        "believed only when it is said again, a minute later",
        faults=("operation:unknown-first",),
        behaviour=SINGLE,
        # At the deadline it is asked in any case, which is sooner than a minute here.
        changes={"polling": {"operation_deadline": "600ms"}, **ONE_ATTEMPT},
    )
    yield Row(
        "an operation that turns 404 and stays so",
        f"once it was said twice, {ANEW}",
        faults=("operation:forgotten,nth=1",),
        behaviour={**SINGLE, "operation_seconds": 0.3},
        changes={"polling": {"operation_deadline": "1500ms", "min_interval": "20ms"}},
        exports=BUNDLES + 1,
    )
    yield Row(
        "an export that is gone (404) when its link is asked for",
        f"once it was said twice, {ANEW}",
        faults=("operation:export-gone,nth=1",),
        exports=BUNDLES + 1,
    )
    yield Row("a results call that says 404 once", AGAIN, faults=("results:404,nth=2",))


def _lists() -> Iterator[Row]:
    for order in ("newest", "oldest", "shuffled"):
        yield Row(
            f"a list of operations in the order: {order}, with 250 old ones of others",
            "finished operations are found, by the list or singly",
            behaviour={"list_order": order, "old_operations": 250},
            changes=ONE_ATTEMPT,
        )
    for name, behaviour, fault in (
        ("without ids", {"list_ids": False}, ()),
        ("with the operations of others mixed in", {"foreign_per_operation": 40}, ()),
        ("that reaches back to one operation only", {"list_reaches": 1}, ()),
        ("whose items move between pages", {"list_moves": True, "foreign_per_operation": 60}, ()),
        ("that repeats its token", {"foreign_per_operation": 60}, ("list:repeated-token",)),
        ("with empty pages", {}, ("list:empty-page",)),
        ("that is refused (403)", {}, ("list:403",)),
        ("that is refused (404)", {}, ("list:404",)),
    ):
        yield Row(
            f"a list of operations {name}",
            "absence is no failure: operations are found singly where the list is of no use",
            faults=fault,
            behaviour=behaviour,
            changes=ONE_ATTEMPT,
        )


def _links() -> Iterator[Row]:
    for status in (400, 403):
        for wording in ("old", "new"):
            yield Row(
                f"an expired link ({status}, {wording} wording)",
                "a fresh link is asked for, never a new export",
                faults=("download:expired,nth=2",),
                behaviour={"expired_link": status, "expired_wording": wording},
            )
    yield Row("a link that is dead when it comes", "a fresh link is asked for", faults=("results:dead-link,nth=2",))
    for status in (403, 404, 429, 500, 503):
        yield Row(f"{status} from the storage host", AGAIN, faults=(f"download:{status},nth=2",))
    yield Row("a redirect of a download", f"not followed: {AGAIN}", faults=("download:redirect,nth=2",))


def _bodies() -> Iterator[Row]:
    for framing in ("length", "chunked", "close"):
        yield Row(
            f"a body cut short, framed by {framing}",
            f"seen; {AGAIN}",
            faults=(f"download:cut-{framing},nth=2",),
            behaviour={"framing": framing},
        )
        yield Row(
            f"a body cut short each time, framed by {framing}, without a hash",
            PARKED,
            faults=(f"download:cut-{framing},{WINDOW}",),
            behaviour={"framing": framing, "goog_hash": "none", "etag": False},
            changes={"retry": {"attempts": 2}},
            code=Exit.PARTIAL,
            stored=3,
            exports=BUNDLES + 1,
        )
    for what, fault in (
        ("reset-body", "a reset in the middle of a download"),
        ("long-length", "a Content-Length that is too long"),
        ("short-length", "a Content-Length that is too short"),
        ("bad-chunk", "a chunk that is garbage"),
        ("garbage", "garbage on the wire of a download"),
        ("html", "an HTML page in place of a file"),
        ("truncated", "truncated gzip of the promised length"),
        ("corrupt", "a wrong byte in the middle"),
        ("bad-crc", "gzip with a wrong CRC"),
        ("bad-size", "gzip with a wrong size"),
        ("trailing", "something after the end of the gzip"),
        ("cut-line", "NDJSON cut at a line's end, with the hash of the whole"),
        ("cut-row", "NDJSON cut within its last line"),
        ("wrong-hash", "an x-goog-hash that does not fit"),
    ):
        yield Row(fault, f"seen; {AGAIN}", faults=(f"download:{what},nth=2",))
        if what in ("truncated", "corrupt", "bad-crc", "bad-size", "trailing", "cut-row"):
            yield Row(
                f"{fault}, each time and without a hash",
                PARKED,
                faults=(f"download:{what},{WINDOW}",),
                behaviour={"goog_hash": "none"},
                changes={"retry": {"attempts": 2}},
                code=Exit.PARTIAL,
                stored=3,
                exports=BUNDLES + 1,
            )
    yield from _no_archives()
    for container in ("ndjson", "csv"):
        yield Row(
            f"an HTML page in place of a file, each time and without a hash ({container})",
            KEPT,
            faults=(f"download:html,{WINDOW}",),
            behaviour={"goog_hash": "none"},
            changes={"retry": {"attempts": 2}},
            container=container,
            code=Exit.PARTIAL,
            stored=3,
            kept=1,
        )
    for container in ("ndjson", "csv", "json"):
        yield Row(
            f"a few kilobytes that inflate to a row of 96 MiB without an end ({container})",
            f"read a piece at a time, and never held; {AGAIN}",
            faults=("download:endless-row,nth=2",),
            container=container,
        )
    yield Row(
        "a JSON array that is not closed", f"seen; {AGAIN}", faults=("download:open-array,nth=2",), container="json"
    )
    yield Row(
        "a cut download that may go on where it stopped",
        "the rest is asked for by Range and If-Range; the hash of the whole is checked",
        faults=(CUT_ONCE,),
    )
    yield Row(
        "a cut download whose ranges are ignored",
        "it begins anew",
        faults=(CUT_ONCE,),
        behaviour={"ranges": False},
    )
    yield Row(
        "other bytes with another ETag behind the next link, after a cut",
        "it begins anew",
        faults=(CUT_ONCE, f"download:changed,{WINDOW},nth=2"),
    )
    yield Row(
        "a range that begins elsewhere than asked",
        "it begins anew",
        faults=(CUT_ONCE, f"download:wrong-range,{WINDOW}"),
    )
    yield Row(
        "other bytes under the same ETag, after a cut",
        "the whole does not add up: it begins anew",
        faults=(CUT_ONCE, f"download:changed-quietly,{WINDOW},nth=2"),
    )


def _no_archives() -> Iterator[Row]:
    """What some box sends under a 200, and what is whole and another bundle's."""
    twice = f"believed only when a second look, some while later and through a fresh link, says the same; {AGAIN}"
    for what, fault, container in (
        ("empty", "nothing at all", "ndjson"),
        ("empty", "nothing at all", "csv"),
        ("newline", "a line end and nothing else", "ndjson"),
        ("not-object", "`[]`", "json"),
    ):
        yield Row(
            f"{fault} under a 200, without a hash, in place of a {container.upper()} file",
            twice,
            faults=(f"download:{what},nth=2",),
            changes=ONE_ATTEMPT,
            container=container,
        )
    for what, fault, container in (
        ("ok", "`OK` under a 200, in place of a CSV file", "csv"),
        ("error-object", '`{"error": …}` under a 200, in place of a NDJSON file', "ndjson"),
        ("ok", "`OK` under a 200, in place of a NDJSON file", "ndjson"),
        ("error-object", '`{"error": …}` under a 200, in place of a JSON file', "json"),
    ):
        yield Row(
            fault,
            f"it is no export: {AGAIN}",
            faults=(f"download:{what},nth=2",),
            changes={"retry": {"attempts": 2}},
            container=container,
        )
        yield Row(
            f"{fault}, each time",
            "after three in a row that export stops, since our list of names must be wrong; no export is made anew",
            faults=(f"download:{what}",),
            container=container,
            code=Exit.USAGE,
            stored=0,
            kept=BUNDLES,
            said="is no",
        )
        yield Row(
            f"{fault}, each time for one bundle",
            "the others come; after three in a row the export stops, and the bundle is unfinished",
            faults=(f"download:{what},{WINDOW}",),
            container=container,
            code=Exit.PARTIAL,
            stored=3,
            kept=1,
            said="is no",
        )
    for container in ("ndjson", "json", "csv"):
        yield Row(
            f"a whole {container.upper()} file with the rows of another range",
            "refused by its EventStart; a new export is made at once, and comes whole",
            faults=("operation:other-rows,nth=2",),
            container=container,
            exports=BUNDLES + 1,
        )
    yield Row(
        "every file with rows of another time by EventStart",
        "after three in a row that is no rule any more; later runs and `verify` know, until a file has the right rows",
        scene="other-rows",
    )


def _containers() -> Iterator[Row]:
    whole = "the archive on the disk is one layer of gzip, and holds every row"
    for delivery, fault in (
        ("members", "gzip of several members"),
        ("nested", "gzip in gzip"),
        ("encoded", "plain rows under Content-Encoding: gzip"),
        ("encoded-gzip", "gzip under Content-Encoding: gzip"),
        ("plain", "a file that a proxy has inflated"),
    ):
        for framing in ("length", "chunked"):
            yield Row(f"{fault}, framed by {framing}", whole, behaviour={"delivery": delivery, "framing": framing})
    for delivery, fault in (("inflated", "inflated"), ("recompressed", "compressed again")):
        yield Row(
            f"a file that was {fault} on the way, under the hash of what is stored, as the headers tell",
            f"its framing and its structure prove it; {whole}",
            behaviour={"delivery": delivery, "stored_form": True},
            changes=ONE_ATTEMPT,
        )
        yield Row(
            f"the same, {fault}, and no header tells",
            f"believed when the same comes twice; {whole}",
            behaviour={"delivery": delivery},
            changes={"retry": {"attempts": 2}},
        )
    for fault, behaviour in (
        ("a plain body whose end is not proved", {"delivery": "plain"}),
        ("an empty body whose end is not proved", {"empty": "nothing", "rows_per_hour": 1e-6}),
    ):
        yield Row(
            fault,
            f"does not count: {PARKED}",
            behaviour={**behaviour, "framing": "close", "goog_hash": "none"},
            changes={"retry": {"attempts": 2}},
            code=Exit.PARTIAL,
            stored=0,
            exports=BUNDLES * 2,
            said="proves",
        )
    yield Row(
        "a plain body whose end only its hash proves",
        whole,
        behaviour={"delivery": "plain", "framing": "close", "goog_hash": "md5"},
    )
    yield Row(
        "an empty body of the promised length",
        "an archive without rows",
        behaviour={"empty": "nothing", "rows_per_hour": 1e-6},
    )
    for file_name in ("../../../outside.gz", "/etc/outside.gz", "a\\..\\b.gz", "n" * 4000):
        yield Row(
            f"a hostile Content-Disposition: `{file_name[:24]}`",
            "names come from the plan alone: nothing lies outside of the output directory",
            behaviour={"file_name": file_name},
        )


def _refreshes() -> Iterator[Row]:
    for name, fault in (
        ("empty", "a refresh that comes back empty"),
        ("half", "a refresh that comes back with half of its rows"),
    ):
        yield Row(
            fault,
            "the archive stays as it is, the bundle is parked with both counts, and later runs do not ask for it again",
            scene=f"refresh:{name}",
        )

    yield Row(
        "a refresh that comes back with the same rows in other bytes",
        "the archive keeps its inode and its date; the ledger names the revision that wrote it",
        scene="same-rows",
    )


def _slowness() -> Iterator[Row]:
    for what, fault in (("stall-body", "a download that stalls in mid-body"), ("stall-head", "a head that stalls")):
        yield Row(
            f"{fault}",
            f"left after `[api] read_timeout`; {AGAIN}",
            faults=(f"download:{what},nth=2",),
            changes={"api": IMPATIENT["api"]},
        )
    yield Row("a drip of one byte at a time", "left once it is slower than `[download] min_rate`", scene="drip")


def _certificates() -> Iterator[Row]:
    for name in ("untrusted", "expired", "wrong-host"):
        yield Row(
            f"a certificate that is {name.replace('-', ' ')}"
            if name != "wrong-host"
            else "a certificate of another host",
            f"no key is sent: {REFUSED}",
            code=Exit.UNREACHABLE,
            scene=f"certificate:{name}",
        )
    yield Row("an authority of one's own, named in `[api] ca_file`", "trusted", scene="certificate:named")


def _disk() -> Iterator[Row]:
    full = "the run ends with exit code 8; once there is room, the same command finishes"
    yield Row("a disk that is full, and freed again (a real small one)", full, scene="small-disk")
    for name in (
        "part.create",
        "part.write",
        "part.fsync",
        "rename",
        "folder.fsync",
        "ledger.commit",
        "definition.write",
    ):
        yield Row(f"no space left at: {name}", full, scene=f"write:{name}:ENOSPC")
    yield Row("an fsync that fails", "nothing gets its final name; exit code 8", scene="write:part.fsync:EIO")
    yield Row("a rename that fails", "nothing gets its final name; exit code 8", scene="write:rename:EIO")
    yield Row(
        "a disk that has no inodes left (a real small one)",
        "exit code 8, named as such; once there are some, the same command finishes",
        scene="inodes",
    )
    for name, kind in (("no file handles left", "EMFILE"), ("a link that leads in a circle", "ELOOP")):
        yield Row(f"{name} at: part.create", "the same, and named as what it is", scene=f"write:part.create:{kind}")
    yield Row("a directory that is read-only", "exit code 8, before anything is asked", scene="read-only")
    yield Row(
        "a file system that cannot flush folders (EINVAL, ENOTSUP)",
        "told once, and lived with: everything comes",
        scene="odd:folder.fsync:before:EINVAL",
    )
    yield Row(
        "a file system that gives out no locks (ENOLCK)",
        "exit code 8, before anything is asked, with what to do",
        scene="odd:lock:before:ENOLCK",
    )
    yield Row(
        "a directory that goes away in mid-run",
        "exit code 8, and told; it is not made anew",
        scene="goes-away:directory",
    )
    for what in ("folder", "link"):
        yield Row(
            f"a {what} in an archive's place",
            "`verify` names that bundle and goes on; `verify --repair` exports it anew",
            scene=f"in-place:{what}",
        )


def _ledgers() -> Iterator[Row]:
    damaged = "exit code 7, before anything is asked; `verify --rebuild` makes it anew"
    yield Row("a ledger that another program keeps locked", "exit code 7; nothing is lost", scene="ledger:busy")
    yield Row("a ledger with flipped bits", damaged, scene="ledger:bits")
    yield Row("a ledger with one bit flipped inside a value", damaged, scene="ledger:value")
    yield Row("a ledger that is cut", damaged, scene="ledger:cut")
    yield Row("a ledger from a newer version", "exit code 7, left as it is", scene="ledger:newer")
    yield Row("archives without a ledger", damaged, scene="ledger:gone")
    yield Row(
        "an API key of another organisation than the data's",
        "exit code 7, before anything is created; both organisations are named",
        scene="organisation",
    )
    yield Row(
        "a ledger that is older than the archives (from a backup)",
        "exit code 7, before anything is asked, with the names of archives; `verify --adopt` takes them in",
        scene="ledger:older",
    )
    yield Row("a ledger that goes away in mid-run", "exit code 7, and told", scene="goes-away:ledger")
    yield Row("a ledger's lock that is a link", "exit code 8; what it leads to is left alone", scene="linked:lock")


def _clocks() -> Iterator[Row]:
    settled = "what is settled goes by the service's clock"
    yield Row("a host clock that is a day fast", settled, scene="clock:-86400")
    yield Row("a host clock that is a day slow", settled, scene="clock:86400")
    stops = "exit code 2 with both times, and nothing is exported; `[api] clock` says whose counts"
    yield Row("a host clock that is three days fast", stops, scene="far:259200")
    yield Row("a host clock that is a month slow", stops, scene="far:-2592000")
    for where, which in (("list", "the first answer"), ("poll", "an answer in mid-run")):
        yield Row(
            f"{which} with a date of another year",
            "a lone date is ignored: others are asked, and they say otherwise",
            faults=(f"{where}:wrong-date,times=1,seconds=99999999",),
            behaviour=SINGLE,
        )
    yield Row(
        "answers from a store, with an Age and a date of yesterday",
        "they tell no time",
        faults=("api:old-date,seconds=-80000",),
    )
    yield Row(
        "an archive that was exported before its data was settled, by a clock that was fast",
        "`status` lists it; it is exported anew, once, when it is settled",
        scene="early",
    )
    yield Row("a host clock that stands still from night to night", "the service is asked for the time", scene="still")
    yield Row(
        "a clock that jumps by a year between two runs", "the budget's level is clamped; the run goes on", scene="jump"
    )


def _people() -> Iterator[Row]:
    yield Row("two runs at once", "the second ends with exit code 4 and names the first", scene="two")
    yield Row(
        "two runs at once where locks do nothing",
        "that locks do nothing is told; the second run ends with exit code 4, or one of both does with its next row",
        scene="no-lock",
    )
    yield Row(
        "archives deleted by hand",
        "a run fetches none of them again; `verify --repair` does",
        scene="deleted",
    )
    yield Row("SIGINT", "downloads under way finish; exit code 130, state saved", scene="signal:SIGINT")
    yield Row("SIGTERM", "downloads under way finish; exit code 143, state saved", scene="signal:SIGTERM")
    yield Row("SIGTERM twice", "it ends at once; exit code 143, state saved", scene="signal:SIGTERM:SIGTERM")
    yield Row("stdout closed early", "no traceback; what is stored is stored", scene="closed-stdout")


SECTIONS = {
    "The limit": _limits,
    "Outages": _outages,
    "The wire": _wire,
    "Replies": _replies,
    "Refusals": _refusals,
    "Creates": _creates,
    "Operations": _operations,
    "The list of operations": _lists,
    "Links and the storage host": _links,
    "Bodies": _bodies,
    "Containers": _containers,
    "Refreshes": _refreshes,
    "Slowness": _slowness,
    "Certificates": _certificates,
    "The disk": _disk,
    "The ledger": _ledgers,
    "Clocks": _clocks,
    "People": _people,
}

ROWS = tuple(row for rows in SECTIONS.values() for row in rows())


OPENING = """\
# Faults and what asyncexport does about them

Each row below is a test. It names a fault of the service, the network, the disk, the clock or the user, and what
asyncexport must do about it. Unless a row needs another setting, the test exports four bundles (two hours of data)
against the sandbox, which produces the fault, and checks the exit code, the archives on disk and the number of exports
that the service made. Then the same command runs again without the fault and must end with every row on disk exactly
once.

Run all rows with `python -m pytest tests/test_fault_table.py`, or some with `-k`, for example `-k Retry-After`.

To turn a fault into a test, add a `Row` to `tests/fault_table.py`: the fault, as a text such as `create:503,nth=2`
(`asyncexport sandbox --show-faults` lists them all) or as a switch of the sandbox, and the expected result. If that is
not enough, name a scene in the row and write it as a function in `tests/test_fault_table.py`. Then generate this page
again: `python -m tests.fault_table > tests/FAULTS.md`.
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
