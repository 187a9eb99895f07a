"""DuckDB and the row-by-row reader make the same table of an archive, whatever its rows hold."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from asyncexport.core.exports import Format
from asyncexport.core.warehouse.day_statement import day_statement
from asyncexport.core.warehouse.reading import texts_of_canonical
from asyncexport.errors import CorruptError
from asyncexport.warehouse.day_maker import DayRequest
from asyncexport.warehouse.exact_path import read_exactly
from asyncexport.warehouse.make_day import make_day
from tests.day_making import request_of, rows_in, table_of
from tests.odd_rows import LAYOUT, ODD_OBJECTS, OddRow

COLUMNS = [column.name for column in LAYOUT.fields]
NAMES = st.sampled_from(
    [*COLUMNS[1:12], *COLUMNS[-6:], "evt_x", "evt_y", "page_z_str"] * 3
    + ["evt_X", "userid", "", "vars", "_rescued", "key", "t0", 'a"\\', "é🎈", "\0", "filename", "date", "file", "a'b"]
)
CHARACTERS = st.text(st.sampled_from("[]{}\",:\\\n\r\t é🎈\u2028\0\x1f\x7fax1#'"), max_size=8)
NUMBERS = st.sampled_from(
    ["0", "12", "-7", "0.1", "2.5", "-0.5", "100.0", "9007199254740993"] * 3
    + ["-0", "-0.0", "1.50", "1e5", "1E-7", "1e-5", "0.00001", "0.0001", "9223372036854775808", "1e400", "3" * 25]
    + ["123456789.123456789", "12345678.5", "1e16", "1.0e3", "0.30000000000000004", "123456789012345680.0", "5e-324"]
)
WORDS = [
    "true",
    "false",
    "null",
    '"2026-01-01T00:00:00.123Z"',
    '"2026-01-01T00:00:00+02:00"',
    '"12"',
    '"1.50"',
    '"NaN"',
]
SCALARS = CHARACTERS.map(json.dumps) | NUMBERS | st.sampled_from(WORDS)
RARE = st.sampled_from(
    ["NaN", "-Infinity", "nan", '"\\ud800"', '"\\ud83d\\ude00"', '"a\tb"', "[1,]", "01", '"x', "tru"]
)
BLANKS = st.sampled_from(["", "", "", " ", "\t "])


def _list(inner: list[str], blank: str) -> str:
    return f"[{blank}{f'{blank},'.join(inner)}{blank}]"


def _object(inner: list[tuple[str, str]], blank: str) -> str:
    members = [f"{blank}{json.dumps(name, ensure_ascii=not blank)}{blank}:{blank}{text}{blank}" for name, text in inner]
    return f"{{{','.join(members)}{blank}}}"


NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(_list, st.lists(inner, max_size=3), BLANKS)
        | st.builds(_object, st.lists(st.tuples(CHARACTERS, inner), max_size=3), BLANKS)
    ),
    max_leaves=5,
)
VALUES = st.one_of(SCALARS, SCALARS, SCALARS, NESTED, st.one_of(*[NESTED] * 5, RARE))
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=5, unique_by=lambda one: one[0]) | st.lists(
    st.tuples(NAMES, VALUES), max_size=6
)
ROWS = st.builds(
    "{}{}{}".format,
    st.just(""),
    st.builds(_object, MEMBERS, BLANKS),
    st.sampled_from(["", "", "", "", "\r", " ", "x", ",}"]),
)
ARCHIVES = st.lists(st.lists(ROWS, min_size=1, max_size=3), min_size=1, max_size=8)


def made_exactly(request: DayRequest) -> list[dict[str, object]]:
    """Return the rows of a day whose archives are all read row by row."""
    canonical = request.scratch / "canonical.ndjson"
    with canonical.open("wb") as written:
        for archive in request.source.archives:
            with (request.output / archive.path).open("rb") as file:
                read_exactly(
                    file,
                    Format.NDJSON,
                    request.layout,
                    archive=archive.path,
                    max_row=request.max_row,
                    has_key=True,
                    write=written.write,
                    quarantine=lambda _: None,
                )
    longest = max((len(line) for line in canonical.read_bytes().splitlines()), default=0)
    texts = texts_of_canonical([str(canonical)], request.layout, longest=longest)
    target = str(request.flat) + ".exact"
    with duckdb.connect(config={"threads": 1}) as duck:
        duck.execute("SET TimeZone = 'UTC'")
        duck.execute(day_statement([texts], request.layout, request.source, target=target, receipt=""))
    return table_of(Path(target))


def check(contents: Sequence[bytes]) -> None:
    """Make a day of archives with these contents in both ways."""
    with TemporaryDirectory() as folder:
        request = request_of(Path(folder), *contents, layout=LAYOUT)
        made = make_day(request)
        found = table_of(request.flat) if request.flat.exists() else []
        assert counted(found) == counted(made_exactly(request))
        assert sum(made.rows.values()) == len(found)


def counted(rows: Sequence[dict[str, object]]) -> Counter[str]:
    """Return how often each row is there."""
    return Counter(repr(row) for row in rows)


@given(ARCHIVES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])  # each example makes files
@example([['{"EventType":"a","evt_x":1}', '{"EventType":"a","evt_x":1}']])
@example([["{}", "{},}"], ["{}"]])
@example([["{}", '{"UserId":""}']])
@example([['{"":1}', '{"UserId":"x"}'], ['{"":1}'], ["{}"]])
def test_both_readers_make_the_same_table(archives):
    """Also if some archives of a day are odd, and others are not."""
    contents = ["\n".join(row.replace("\n", " ") for row in rows).encode("utf-8", "surrogatepass") for rows in archives]
    try:
        for content in contents:
            rows_in(content, Format.NDJSON)
    except CorruptError:
        assume(False)
    check(contents)


@pytest.mark.parametrize("odd", ODD_OBJECTS, ids=[odd.says for odd in ODD_OBJECTS])
def test_both_readers_agree_on_odd_rows(odd: OddRow):
    """Each odd row, beside an archive without any."""
    if odd.reason == "the row is not a JSON object":
        return
    check([b'{"UserId":1}\n%b\n{"UserId":3}\n' % odd.row, b'{"UserId":4,"evt_x":[1.5]}\n'])
