"""`init --from-hauser`: what is taken over, what is not and why, and that the token is nowhere.

`tests/hauser` has configurations, and for each one what is printed and which lines of the new file differ from the
example.
"""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncexport.cli import main
from asyncexport.config import EXAMPLE
from asyncexport.config.hauser import NOT_NEEDED, TABLES, TAKEN, HauserFile, convert, filled_example
from asyncexport.config.hauser_values import describe_time, go_duration
from asyncexport.core.exits import Exit
from tests.json_lines import check

FOLDER = Path(__file__).parent / "hauser"

VARIANTS = sorted(path.stem for path in FOLDER.glob("*.toml"))

ARGUMENTS: dict[str, tuple[str, ...]] = {"bucket": ("--sync-point", "2026-01-31T07:00:00Z")}
"""Further arguments for a variant."""

TOKEN = "na1.CANARYTOKEN"

NOW = 1_788_220_800
"""2026-09-01T00:00:00Z."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepare(name: str) -> None:
    """Put a configuration, and the sync files that belong to it, into the working directory."""
    Path("hauser.toml").write_text((FOLDER / f"{name}.toml").read_text())
    if name == "local_prefix":
        Path("hauser-files/fullstory").mkdir(parents=True)
        Path("hauser-files/fullstory/.sync.hauser").write_text("2026-01-15T06:00:00Z")
        Path("hauser-files/.sync.hauser").write_text("2026-01-15T05:30:00Z\n")


def converted(capsys: pytest.CaptureFixture[str], name: str) -> str:
    """Convert a configuration; return what is printed, and the lines of the new file that differ from the example."""
    assert main(["init", "--from-hauser", "hauser.toml", *ARGUMENTS.get(name, ())]) == 0
    captured = capsys.readouterr()
    written = Path("asyncexport.toml").read_text().splitlines()
    example = set(EXAMPLE.splitlines())
    changed = [line for line in written if line not in example and not line.startswith("#")]
    text = "\n".join([*captured.out.splitlines(), *captured.err.splitlines(), "---- changed lines:", *changed, ""])
    return text.replace(str(Path.cwd()), "HERE")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_result_is_as_expected(capsys, name):
    """Each key is taken over or named with a reason, and only these lines of the file differ from the example."""
    prepare(name)
    assert converted(capsys, name) == (FOLDER / f"{name}.expected").read_text()


@pytest.mark.parametrize("name", VARIANTS)
def test_plan_accepts_the_result(capsys, name):
    """The new file is valid, and `plan --nightly` works with it."""
    prepare(name)
    converted(capsys, name)
    assert main(["--json", "plan", "--nightly"]) == 0
    (plan, *_) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert plan["type"] == "plan"
    assert plan["to_do"] > 0
    since = tomllib.loads(Path("asyncexport.toml").read_text())["nightly"]["since"]
    assert not since or plan["start"] == since


@pytest.mark.parametrize("name", VARIANTS)
def test_no_secret_is_copied(capsys, name):
    """The token and the passwords are nowhere; headers are in the new file only, which others cannot read then."""
    prepare(name)
    Path("asyncexport.toml").write_text("")
    for options in (("--force",), ("--json", "--force")):
        assert main(["init", "--from-hauser", "hauser.toml", *ARGUMENTS.get(name, ()), *options]) == 0
        captured = capsys.readouterr()
        assert "CANARY" not in captured.out + captured.err
    written = Path("asyncexport.toml").read_text()
    assert "CANARYTOKEN" not in written
    assert "CANARYPASSWORD" not in written
    if "CANARY" in written:
        assert stat.S_IMODE(Path("asyncexport.toml").stat().st_mode) == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(
            ["SegmentId", "ApiURL", "FilePrefix", "TmpDir", "Provider", "ExportDuration", "na1.CANARYTOKEN"]
        ),
        st.sampled_from([TOKEN, f"a{TOKEN}b", f"https://api.example.com/{TOKEN}", "everyone", f"<{TOKEN}>"]),
    ),
    st.sampled_from([f"/srv/{TOKEN}", "/srv", "/srv/CANARYTOKEN"]),
    st.sampled_from(
        [
            {"FsApiToken": TOKEN},
            {"FsApiToken": f"Basic {TOKEN}"},
            {"fsapitoken": f" {TOKEN} "},
            {"FsApiToken": "na1.another", "FSAPITOKEN": TOKEN},
        ]
    ),
)
def test_a_token_in_another_value_is_not_copied_either(capsys, values, folder, tokens):
    """Nothing is written then, or the value is left out; however the token and its key are written."""
    lines = [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in {**values, **tokens}.items()]
    Path("hauser.toml").write_text("\n".join([*lines, "[local]", f"SaveDir = {json.dumps(folder)}"]))
    Path("asyncexport.toml").unlink(missing_ok=True)
    code = main(["init", "--from-hauser", "hauser.toml"])
    captured = capsys.readouterr()
    assert "CANARY" not in captured.out + captured.err
    assert code == (0 if Path("asyncexport.toml").exists() else Exit.USAGE)
    if code == 0:
        assert "CANARY" not in Path("asyncexport.toml").read_text()
        tomllib.loads(Path("asyncexport.toml").read_text())


def test_a_sync_file_without_a_time_is_reported(capsys):
    """It is ignored, and StartTime counts."""
    prepare("local_prefix")
    Path("hauser-files/.sync.hauser").write_text("\x1b[31m")
    Path("hauser-files/fullstory/.sync.hauser").unlink()
    printed = converted(capsys, "local_prefix")
    assert "HERE/hauser-files/.sync.hauser has no time and is ignored" in printed
    assert 'since = "2025-12-01T00:00:00Z"' in printed


def test_a_relative_folder_starts_at_the_file_or_here(capsys, tmp_path, monkeypatch):
    """The directory in which hauser ran is not known."""
    prepare("local_prefix")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["init", "--from-hauser", "../hauser.toml"]) == 0
    assert 'since = "2026-01-15T05:30:00Z"' in Path("asyncexport.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "text", "error"),
    [
        (("--sync-point", "2026-01-01"), None, "--sync-point: needs --from-hauser"),
        (("--from-hauser", "nowhere.toml"), None, "--from-hauser: there is no file "),
        (("--from-hauser", "hauser.toml"), "[nightly]\nsince = ''\n", "hauser.toml has none of hauser's keys"),
        (("--from-hauser", "hauser.toml"), "StartTime = <time>", "hauser.toml is not valid TOML: "),
        (("--from-hauser", "hauser.toml", "--sync-point", "9999-01-01"), "", "is in the future"),
        (("--from-hauser", "hauser.toml", "--sync-point", "soon"), "", "--sync-point: "),
        (("-c", "hauser.toml", "--force", "--from-hauser", "hauser.toml"), "", "-c: hauser.toml is hauser's file"),
    ],
)
def test_wrong_input_is_refused(capsys, arguments, text, error):
    """One line says what is wrong, and nothing is written."""
    prepare("bucket")
    if text:
        Path("hauser.toml").write_text(text)
    before = Path("hauser.toml").read_text()
    assert main(["init", *arguments]) == Exit.USAGE
    (first, *_) = capsys.readouterr().err.splitlines()
    assert error in first
    assert Path("hauser.toml").read_text() == before
    assert not Path("asyncexport.toml").exists()


def test_an_existing_file_is_kept(capsys):
    """Without --force."""
    prepare("bucket")
    Path("asyncexport.toml").write_text("")
    assert main(["init", "--from-hauser", "hauser.toml"]) == Exit.USAGE
    assert Path("asyncexport.toml").read_text() == ""
    assert "asyncexport.toml already exists" in capsys.readouterr().err


def test_each_key_has_a_json_line(capsys):
    """With --json, each key is an object."""
    prepare("redshift_europe")
    assert main(["--json", "init", "--from-hauser", "hauser.toml"]) == 0
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    by_key = {one["key"]: one for one in records if one["type"] == "converted"}
    assert by_key["SegmentId"] == {
        "type": "converted",
        "key": "SegmentId",
        "setting": "[[export]] segment",
        "value": '"checkout"',
        "why": "",
    }
    assert by_key["FsApiToken"]["setting"] is None
    assert records[-1]["exit_code"] == 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("90m", 5400.0),
        ("250ms", 0.25),
        ("1h2m3s", 3723.0),
        ("0", 0.0),
        ("", None),
        ("h", None),
        ("1 h", None),
        ("-1h", None),
        ("1d", None),
        (5, None),
    ],
)
def test_durations_are_read_as_go_writes_them(text, seconds):
    """A number and a unit, once or more often."""
    assert go_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-01-01T05:00:00+02:00", "2026-01-01T03:00:00Z"),
        (tomllib.loads("t = 2026-01-01T00:00:00.9Z")["t"], "2026-01-01T00:00:00Z"),
        (tomllib.loads("t = 2026-01-01")["t"], "2026-01-01T00:00:00Z"),
        (tomllib.loads("t = 0001-01-01T00:00:00Z")["t"], ""),
        ("soon", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_times_are_read_in_any_form(value, text):
    """With an offset or without, as TOML's own time or as text."""
    assert describe_time(value) == text


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(["", "x", "1h", "7h", "2026-01-01", "2999-01-01", "<your value>"]),
    st.lists(st.sampled_from([{}, {"Key": "X-Team", "Value": "a"}, {"Key": 1}, "x"]), max_size=2),
    st.just({"SaveDir": "/srv", "other": 1}),
).filter(lambda value: value is not None)

KEYS = [*TAKEN, *NOT_NEEDED, *TABLES, "SegmentId", "GroupFilesByDay", "Local", "StartTime", "unknown"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_each_key_is_named_whatever_its_value(values):
    """It is taken over, or listed with a reason; so are the keys of the table `local`."""
    done = convert(HauserFile(values), now=NOW)
    named = [one.key for one in done.keys]
    inner = [
        f"{key}.{one}"
        for key, table in values.items()
        if key.lower() == "local" and isinstance(table, dict)
        for one in table
    ]
    for key in [*values, *inner]:
        assert any(one == key or one.startswith((f"{key} ", f"{key}.", f"{key}:")) for one in named), key
    assert all(one.why for one in done.keys if not one.setting)


def test_what_is_listed_says_why():
    """Two spellings of a key, a wrong type, an empty value, and a start that nightly runs would refuse."""
    values: dict[str, Any] = {
        "SegmentId": "a",
        "segmentid": "b",
        "SaveAsJson": "yes",
        "AdditionalHttpHeader": "x",
        "ApiURL": "",
    }
    values |= {"ExportDuration": "bad", "GroupFilesByDay": True, "StartTime": "2999-01-01"}
    done = convert(HauserFile({**values, "Local": {"Weird": 1}}), now=NOW, since="2998-01-01T00:00:00Z", since_from="f")
    why = {one.key: one.why for one in done.keys if not one.setting}
    assert why["segmentid"] == "SegmentId is the same key and counts"
    assert why["AdditionalHttpHeader"] == "its value has the wrong type"
    assert why["GroupFilesByDay"] == "ExportDuration decides"
    assert why["ApiURL"].startswith("the value is not valid as [api] base_url: ")
    assert why["Local.Weird"] == "it is no key of hauser's"
    assert why["f"].startswith("2998-01-01T00:00:00Z is in the future")
    assert why["StartTime"].startswith("2999-01-01T00:00:00Z is in the future")


@given(
    st.dictionaries(st.sampled_from(["SegmentId", "SaveDir", "StartTime", "ExportDuration", "local"]), st.integers()),
    st.text(max_size=20),
)
def test_any_values_lead_to_valid_toml(values: dict[str, Any], folder: str):
    """Numbers in the place of texts, and any characters in a path."""
    done = convert(HauserFile({**values, "Local": {"SaveDir": folder, "StartTime": 3}, "GroupFilesByDay": 1}), now=NOW)
    written = tomllib.loads(filled_example(EXAMPLE, done.settings, head=["x"]))
    if ("output", "directory") in done.settings:
        assert written["output"]["directory"] == f"{folder.rstrip('/')}/asyncexport"
