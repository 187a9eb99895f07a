"""The settings: where they are read from, and what the user is told if they cannot be used."""

import os
import re
import tomllib
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.config import EXAMPLE, ApiKey, Settings, load_key, load_settings, read_duration, write_duration
from asyncexport.config.layers import known_keys
from asyncexport.core.bundles import DAY, HOUR
from asyncexport.core.exports import Definition, Export, Format, Type
from asyncexport.errors import ConfigError, UnauthorizedError

CANARY = "na1.Q0FOQVJZ+c2VjcmV0/LWtleQ=="


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working directory."""
    return tmp_path


def read(
    here: Path, toml: str = "", *, environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    """Load `toml` as the config file of the working directory."""
    (here / "asyncexport.toml").write_text(toml, encoding="utf-8")
    return load_settings(file=None, environ=environ or {}, flags=flags or {}, working_directory=here)


def faults(here: Path, toml: str = "", **sources: Any) -> list[str]:
    """Return the problems reported for a configuration that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        read(here, toml, **sources)
    return [str(problem) for problem in caught.value.problems]


def text_shown_for(here: Path, toml: str) -> str:
    """Return the `repr` of the API settings, or the error if they cannot be used."""
    try:
        return repr(read(here, toml).api)
    except ConfigError as error:
        return str(error)


# Where settings come from


def test_without_a_file_there_is_one_export_of_everyones_events(here: Path) -> None:
    """Without file, variables and flags the defaults apply."""
    settings = load_settings(file=None, environ={}, flags={}, working_directory=here)
    assert settings == Settings()
    assert settings.exports == (Export("everyone-events"),)
    assert (settings.api.base_url, settings.api.proxy, settings.api.ca_file, settings.api.headers) == (
        "auto",
        "",
        None,
        {},
    )
    assert (settings.api.connect_timeout_seconds, settings.api.read_timeout_seconds) == (10.0, 60.0)
    assert (settings.budget.requests_per_minute, settings.budget.burst, settings.budget.scope) == (2.0, 50, "auto")
    assert (settings.concurrency.operations, settings.concurrency.downloads) == (100, 4)
    assert (settings.polling.min_interval_seconds, settings.polling.expected_seconds) == (10.0, 300.0)
    assert (settings.polling.operation_deadline_seconds, settings.polling.prefer) == (86_400.0, "throughput")
    assert (settings.retry.attempts, settings.retry.outage_seconds) == (5, 21_600.0)
    assert (settings.retry.before_split, settings.retry.split_to_seconds) == (2, 300)
    assert (settings.retry.backoff_initial_seconds, settings.retry.backoff_max_seconds) == (1.0, 300.0)
    assert (settings.download.min_rate, settings.download.max_row) == (1024, 64 << 20)
    assert settings.download.second_look_seconds == 60.0
    assert (settings.output.directory, settings.output.grace_seconds) == (Path("exports"), 30.0)
    assert (settings.nightly.since_at(0.0), settings.nightly.refresh_seconds) == (None, ())


def test_a_flag_overrides_a_variable_and_a_variable_the_file(here: Path) -> None:
    """For each key the order is flag, environment, file, default."""
    toml = "[budget]\nburst = 10\nrequests_per_minute = 3\n[concurrency]\ndownloads = 7\n"
    environ = {"ASYNCEXPORT_BUDGET__BURST": "20", "ASYNCEXPORT_BUDGET__REQUESTS_PER_MINUTE": "0.5"}
    settings = read(here, toml, environ=environ, flags={"budget.burst": 30, "budget.scope": None})
    assert settings.budget.burst == 30
    assert settings.budget.requests_per_minute == 0.5
    assert settings.concurrency.downloads == 7
    assert settings.budget.scope == "auto"


def test_the_file_is_that_of_the_option_else_the_variable_else_the_directory(here: Path) -> None:
    """Of these three files only the first one named is read."""
    for name, burst in (("asyncexport.toml", 1), ("variable.toml", 2), ("option.toml", 3)):
        (here / name).write_text(f"[budget]\nburst = {burst}\n")
    environ = {"ASYNCEXPORT_CONFIG": "variable.toml"}

    def burst_of(file: Path | None, environ: Mapping[str, str]) -> int:
        return load_settings(file=file, environ=environ, flags={}, working_directory=here).budget.burst

    assert burst_of(Path("option.toml"), environ) == 3
    assert burst_of(None, environ) == 2
    assert burst_of(None, {"ASYNCEXPORT_CONFIG": ""}) == 1


def test_variables_are_converted_to_the_types_of_their_settings(here: Path) -> None:
    """Numbers, durations, paths, choices and a table of headers are read from text."""
    settings = read(
        here,
        environ={
            "ASYNCEXPORT_BUDGET__REQUESTS_PER_MINUTE": "6000",
            "ASYNCEXPORT_RETRY__ATTEMPTS": "2",
            "ASYNCEXPORT_POLLING__MIN_INTERVAL": "250ms",
            "ASYNCEXPORT_POLLING__PREFER": "latency",
            "ASYNCEXPORT_OUTPUT__DIRECTORY": "/data/exports",
            "ASYNCEXPORT_API__HEADERS": '{"X-Team": "data"}',
            "ASYNCEXPORT_NIGHTLY__SINCE": "2026-01-01",
            "PATH": "/bin",
        },
    )
    assert (settings.budget.requests_per_minute, settings.retry.attempts) == (6000.0, 2)
    assert (settings.polling.min_interval_seconds, settings.polling.prefer) == (0.25, "latency")
    assert settings.output.directory == Path("/data/exports")
    assert settings.api.headers == {"X-Team": "data"}
    assert settings.nightly.since_at(0.0) == 1_767_225_600


def test_flags_may_be_text_or_typed(here: Path) -> None:
    """A flag may be a value that the command line has parsed, or text."""
    flags = {"output.directory": Path("a"), "budget.burst": "7", "output.grace": "5s", "retry.attempts": 3}
    settings = read(here, flags=flags)
    assert (settings.output.directory, settings.budget.burst) == (Path("a"), 7)
    assert (settings.output.grace_seconds, settings.retry.attempts) == (5.0, 3)


def test_pydantic_does_not_read_the_environment_itself(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables passed to `load_settings` are read, whatever the process's environment contains."""
    monkeypatch.setenv("BUDGET", '{"burst": 3}')
    monkeypatch.setenv("ASYNCEXPORT_BUDGET__BURST", "3")
    assert read(here).budget.burst == 50
    assert Settings().budget.burst == 50


def test_settings_cannot_be_changed(here: Path) -> None:
    """Settings are frozen."""
    settings = read(here)
    for owner, name in ((settings, "budget"), (settings.budget, "burst")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(owner, name, None)


def test_a_file_with_a_byte_order_mark_is_read(here: Path) -> None:
    """A byte order mark at the start of the file is ignored."""
    (here / "bom.toml").write_bytes(b"\xef\xbb\xbf[budget]\nburst = 3\n")
    assert load_settings(file=Path("bom.toml"), environ={}, flags={}, working_directory=here).budget.burst == 3


# Files that cannot be read


def test_a_missing_file_is_reported_with_what_named_it(here: Path) -> None:
    """The message has the path, and whether the option or the variable named it."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file=Path("nope.toml"), environ={}, flags={}, working_directory=here)
    assert str(caught.value) == f"-c: there is no file {here / 'nope.toml'}"
    with pytest.raises(ConfigError) as caught:
        load_settings(file=None, environ={"ASYNCEXPORT_CONFIG": "/nope.toml"}, flags={}, working_directory=here)
    assert str(caught.value) == "ASYNCEXPORT_CONFIG: there is no file /nope.toml"


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_file_that_was_named_is_an_error(tmp_path, text):
    """A file that a failed program left empty does not send a run to the real service with the defaults."""
    path = tmp_path / "empty.toml"
    path.write_text(text, encoding="utf-8")
    for file, environ, origin in ((path, {}, "-c"), (None, {"ASYNCEXPORT_CONFIG": str(path)}, "ASYNCEXPORT_CONFIG")):
        with pytest.raises(ConfigError) as caught:
            load_settings(file=file, environ=environ, flags={}, working_directory=tmp_path)
        assert str(caught.value) == f"{origin}: {path} is empty; leave the option out to use the defaults"
    assert load_settings(file=Path(os.devnull), environ={}, flags={}, working_directory=tmp_path) == Settings()
    assert read(tmp_path, text).budget.burst == 50


def test_a_broken_link_is_not_treated_as_no_file(here: Path) -> None:
    """A run never falls back to the defaults because the disk with the config file is not mounted."""
    (here / "asyncexport.toml").symlink_to(here / "gone.toml")
    with pytest.raises(ConfigError, match="there is no file"):
        load_settings(file=None, environ={}, flags={}, working_directory=here)


def test_a_directory_is_no_file(here: Path) -> None:
    """A directory instead of a file is reported in one line."""
    with pytest.raises(ConfigError) as caught:
        load_settings(file=here, environ={}, flags={}, working_directory=here)
    assert str(caught.value) == f"-c: {here} cannot be read: is a directory"


@pytest.mark.parametrize(
    ("content", "hinted"),
    [("[budget]\nburts = 3\n", True), ("[budget]\nburst = = 3\n", False), (None, False)],
    ids=["unknown key", "syntax", "no file"],
)
def test_a_list_of_all_settings_is_suggested_where_it_helps(here: Path, content: str | None, *, hinted: bool) -> None:
    """The hint writes it to another file than the one that has the fault."""
    file = here / "asyncexport.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(file=file, environ={}, flags={}, working_directory=here)
    assert caught.value.hint.startswith("`asyncexport init -c all-settings.toml` writes") is hinted
    assert hinted or not caught.value.hint


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"[budget]\nburst = = 3\n", "is not valid TOML: invalid value (at line 2, column 9)"),
        (b'[api]\nproxy = "http\nb = 1\n', "is not valid TOML: a quotation mark is not closed (at line 2, column 14)"),
        (b"proxy = 'http\nb = 1\n", "is not valid TOML: a quotation mark is not closed (at end of document)"),
        (b"proxy = '''http", "is not valid TOML: a quotation mark is not closed (at end of document)"),
        (b'proxy = """http', "is not valid TOML: a quotation mark is not closed (at end of document)"),
        (b"burst = \xff", "is not UTF-8 text"),
        (b"a = " + b"9" * 5000, "contains a number that is too long or tables nested too deeply"),
        (b"a = " + b"[" * 50_000, "contains a number that is too long or tables nested too deeply"),
    ],
    ids=[
        "syntax",
        "quote",
        "single quote",
        "three single quotes",
        "three quotes",
        "latin-1",
        "long number",
        "deep nesting",
    ],
)
def test_invalid_toml_is_reported_with_its_file(here: Path, content: bytes, reported: str) -> None:
    """A syntax error has the file and the line, and faults of other sources are reported with it."""
    file = here / "asyncexport.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(file=None, environ={"ASYNCEXPORT_FOO": "1"}, flags={}, working_directory=here)
    assert [str(problem) for problem in caught.value.problems] == [
        f"asyncexport.toml {reported}",
        "ASYNCEXPORT_FOO: unknown variable",
    ]


@pytest.mark.parametrize(
    "variable",
    [
        "ASYNCEXPORT_PORT",
        "ASYNCEXPORT_PORT_443_TCP",
        "ASYNCEXPORT_PORT_443_TCP_ADDR",
        "ASYNCEXPORT_PORT_53_UDP_PROTO",
        "ASYNCEXPORT_SERVICE_HOST",
        "ASYNCEXPORT_SERVICE_PORT",
        "ASYNCEXPORT_SERVICE_PORT_HTTPS_ALT",
        "ASYNCEXPORT_SANDBOX_SERVICE_HOST",
        "ASYNCEXPORT_SANDBOX_PORT_8765_TCP_PORT",
    ],
)
def test_variables_that_kubernetes_sets_in_every_pod_are_ignored(here: Path, variable: str) -> None:
    """The variables of a service whose name begins with `asyncexport` are no settings."""
    assert read(here, environ={variable: "tcp://10.0.0.1:443"}) == Settings()
    assert faults(here, environ={f"{variable}S_": "x"})


@pytest.mark.parametrize(
    "name", ["Host", "Content-Length", "transfer-encoding", "Expect", "CONNECTION", "Content-Type", "Authorization"]
)
def test_headers_that_would_break_a_request_are_rejected(here: Path, name: str) -> None:
    """Headers for framing, host, connection and authorisation cannot be set."""
    [reported] = faults(here, f'[api]\nheaders = {{ "{name}" = "x" }}')
    assert reported.startswith(f"api.headers: must not set {name}: ")


# Messages about settings that cannot be used

NAME_RULE = 'must be up to 100 letters, digits, ".", "_" and "-", the first a letter or digit'

DATE_RULE = 'expected a date such as "2026-01-01", "2026-01-01T12:00:00Z", "90d", "12w" or "36h"'

PUBLIC_PAGE_RULE = (
    "lets other machines read the page: choose a host such as 127.0.0.1, or set [dashboard] public = true"
)

PUBLIC_RULE = "lets other machines read the metrics: choose a host such as 127.0.0.1, or set [metrics] public = true"

MESSAGES = [
    # Unknown names
    ("[budget]\nbrust = 5", "budget.brust: unknown key (did you mean burst?)"),
    ("[bugdet]\nburst = 5", "bugdet: unknown table (did you mean [budget]?)"),
    ("zzz = 5", "zzz: unknown table"),
    ("burst = 5", "burst: unknown here: it belongs in [budget]"),
    ("[budget]\noperations = 5", "budget.operations: unknown here: it belongs in [concurrency]"),
    ("[polling]\nscope = 'all'", "polling.scope: unknown here: it belongs in [budget] or [[export]]"),
    ("[polling]\nmin_interval_seconds = 3", "polling.min_interval_seconds: unknown key (did you mean min_interval?)"),
    ("[[export]]\nnmae = 'x'", "export[1].nmae: unknown key (did you mean name?)"),
    ("[[export]]\nname = 'x'\nfield = []", 'export "x".field: unknown key (did you mean fields?)'),
    # Metrics and pings
    ("[metrics]\nlisten = '9464'", 'metrics.listen: expected a host and a port, such as "127.0.0.1:9464", got "9464"'),
    (
        "[metrics]\nlisten = '::1:9464'",
        'metrics.listen: expected a host and a port, such as "127.0.0.1:9464", got "::1:9464"',
    ),
    ("[metrics]\nlisten = '127.0.0.1:65536'", 'metrics.listen: the port must be at most 65535, got "127.0.0.1:65536"'),
    (
        "[dashboard]\nlisten = 'localhost'",
        'dashboard.listen: expected a host and a port, such as "127.0.0.1:8766", got "localhost"',
    ),
    ("[metrics]\nlisten = '[::]:9464'", f'metrics.listen: {PUBLIC_RULE}, got "[::]:9464"'),
    ("[metrics]\nlisten = '0.0.0.0:9464'", f'metrics.listen: {PUBLIC_RULE}, got "0.0.0.0:9464"'),
    ("[dashboard]\nlisten = '0.0.0.0:8765'", f'dashboard.listen: {PUBLIC_PAGE_RULE}, got "0.0.0.0:8765"'),
    ("[metrics]\npublic = 'yes'", 'metrics.public: expected true or false, got "yes"'),
    ("[ping]\nurl = 'hc-ping.com/x'", 'ping.url: expected "" or a URL such as "https://hc-ping.com/UUID"'),
    (
        "[ping]\nurl = 'http://hc-ping.com/x'",
        "ping.url: must be https: over http, others could read the URL (http is allowed for localhost only)",
    ),
    ("[ping]\nurl = 'https://a:b@hc-ping.com/x'", "ping.url: must not contain a user or a password"),
    ("[ping]\ntimeout = '0s'", "ping.timeout: must be longer than 0s"),
    # Wrong types
    ("budget = 5", "budget: expected a table, written [budget]"),
    ("[[budget]]\nburst = 5", "budget: expected a table, written [budget]"),
    ("[export]\nname = 'x'", "export: expected [[export]], with double brackets"),
    ("export = [1]", "export[1]: expected a table"),
    ("export = []", "export: must contain at least one export; leave it out for the default, everyone-events"),
    ("[budget]\nburst = '50'", 'budget.burst: expected a whole number, got "50"'),
    ("[budget]\nburst = 2.5", "budget.burst: expected a whole number, got 2.5"),
    ("[budget]\nburst = true", "budget.burst: expected a whole number, got true"),
    ("[budget]\nburst = [1]", "budget.burst: expected a whole number, got a list"),
    ("[budget]\nburst = 2026-01-01", "budget.burst: expected a whole number, got a date or time"),
    ("[budget]\nrequests_per_minute = 'fast'", 'budget.requests_per_minute: expected a number, got "fast"'),
    ("[budget]\nrequests_per_minute = nan", "budget.requests_per_minute: expected a finite number, got nan"),
    ("[output]\ndirectory = 5", "output.directory: expected a path in quotes, got 5"),
    ("[[export]]\nsegment = 5", "export[1].segment: expected text in quotes, got 5"),
    (
        "[[export]]\nfields = 'UserId'",
        'export[1].fields: expected a list of texts, such as ["EventStart", "evt_*"], got "UserId"',
    ),
    ("[[export]]\nfields = ['UserId', 3]", "export[1].fields[2]: expected text in quotes, got 3"),
    # Numbers
    ("[budget]\nrequests_per_minute = 0", "budget.requests_per_minute: must be more than 0, got 0"),
    ("[budget]\nrequests_per_minute = -1", "budget.requests_per_minute: must be more than 0, got -1"),
    (
        "[budget]\nrequests_per_minute = 1e-300",
        "budget.requests_per_minute: must be between 0.000001 and 1000000000, got 1e-300",
    ),
    ("[budget]\nburst = 0", "budget.burst: must be at least 1, got 0"),
    (f"[budget]\nburst = 0x{'f' * 9999}", "budget.burst: must be at most 1000000000, got a number too large"),
    ("[concurrency]\noperations = 0", "concurrency.operations: must be at least 1, got 0"),
    ("[concurrency]\ndownloads = -4", "concurrency.downloads: must be at least 1, got -4"),
    ("[retry]\nattempts = 0", "retry.attempts: must be at least 1, got 0"),
    ("[retry]\nbefore_split = 0", "retry.before_split: must be at least 1, got 0"),
    (
        "[retry]\nsplit_to = '10m'",
        'retry.split_to: must be one of 12h, 6h, 3h, 1h, 30m, 15m, 5m, got "10m"',
    ),
    ("[download]\nmin_rate = 0", "download.min_rate: must be more than 0, got 0"),
    (
        "[download]\nmax_row = 1000",
        'download.max_row: expected a size in quotes and with the unit KiB, MiB or GiB, such as "64MiB", got 1000',
    ),
    ('[download]\nmax_row = "3KiB"', 'download.max_row: must be between 1MiB and 900MiB, got "3KiB"'),
    # Durations
    (
        "[output]\ngrace = 30",
        'output.grace: expected a duration in quotes and with a unit, such as "10s", got 30',
    ),
    (
        "[output]\ngrace = '30'",
        'output.grace: expected a duration such as "250ms", "10s", "30m", "1h30m" or "7d", got "30"',
    ),
    ("[output]\ngrace = '4000d'", 'output.grace: must not be longer than ten years, got "4000d"'),
    ("[polling]\nmin_interval = '0s'", 'polling.min_interval: must be longer than 0s, got "0s"'),
    (
        "[polling]\nexpected = '48h'",
        'polling.operation_deadline: must not be shorter than expected (2d), got "24h"',
    ),
    (
        "[retry]\nbackoff_initial = '2m'\nbackoff_max = '90s'",
        'retry.backoff_max: must not be shorter than backoff_initial (2m), got "90s"',
    ),
    # Choices
    ("[api]\nclock = 'hots'", 'api.clock: expected "", service or host (did you mean host?)'),
    ("[api]\nclock = 'mine'", 'api.clock: expected "", service or host'),
    ("[budget]\nscope = 'al'", 'budget.scope: expected auto, all or create, got "al" (did you mean all?)'),
    ("[polling]\nprefer = 'x'", 'polling.prefer: expected throughput or latency, got "x"'),
    (
        "[[export]]\ntype = 'TYPE_EVENT'",
        'export[1].type: expected event or individual, got "TYPE_EVENT" (did you mean event?)',
    ),
    ("[[export]]\nformat = 'CSV'", 'export[1].format: expected ndjson, csv or json, got "CSV" (did you mean csv?)'),
    # Exports
    (
        "[[export]]\nname = '.asyncexport'",
        f'export ".asyncexport".name: {NAME_RULE}, got ".asyncexport"',
    ),
    (
        "[[export]]\nname = '../up'",
        f'export "../up".name: {NAME_RULE}, got "../up"',
    ),
    (
        "[[export]]\nname = 'a'\n[[export]]\nname = 'A'",
        "export[2].name: is the same as that of export[1]; each export needs a directory of its own",
    ),
    (
        "[[export]]\n[[export]]\nformat = 'csv'",
        "export[2].name: is the same as that of export[1]; each export needs a directory of its own",
    ),
    ("[[export]]\nbundle = '7m'", 'export[1].bundle: must divide a day, as 6m and 8m do, got "7m"'),
    ("[[export]]\nbundle = '301s'", 'export[1].bundle: must divide a day, as 5m and 6m do, got "301s"'),
    ("[[export]]\nbundle = '23h'", 'export[1].bundle: must divide a day, as 12h and 24h do, got "23h"'),
    ("[[export]]\nbundle = '4m'", 'export[1].bundle: must be between 5m and 24h, got "4m"'),
    ("[[export]]\nbundle = '48h'", 'export[1].bundle: must be between 5m and 24h, got "48h"'),
    ("[[export]]\nbundle = '337500ms'", 'export[1].bundle: must divide a day, as 5m and 6m do, got "337500ms"'),
    ("[nightly]\nrefresh = '401d'", 'nightly.refresh: must not be longer than 400d, got "401d"'),
    ("[nightly]\nrefresh = ['48h', '401d']", 'nightly.refresh[2]: must not be longer than 400d, got "401d"'),
    (
        "[nightly]\nrefresh = 48",
        'nightly.refresh: expected a duration in quotes and with a unit, such as "10s", got 48',
    ),
    ("[nightly]\nrefresh = '26h'", "nightly.refresh: has no effect: no age is longer than settle (26h)"),
    ("[nightly]\nrefresh = ['1h', '26h']", "nightly.refresh: has no effect: no age is longer than settle (26h)"),
    (
        "[nightly]\nrefresh = '48h'\n[[export]]\nname = 'a'\nsettle = '72h'\n[[export]]\nsettle = '96h'",
        "nightly.refresh: has no effect: no age is longer than settle (3d)",
    ),
    ("[[export]]\nsettle = '1500ms'", 'export[1].settle: must be whole seconds, got "1500ms"'),
    ("[[export]]\nsegment = ' '", 'export[1].segment: must not be empty, got " "'),
    (
        '[[export]]\nsegment = "a\\nb"',
        "export[1].segment: must be one line of printable text, got a hidden text",
    ),
    ("[[export]]\nfields = ['']", "export[1].fields[1]: must not be empty"),
    (
        "[[export]]\ntype = 'individual'\nbundle = '30m'",
        'export[1].bundle: must be 24h for individuals, because their rows are totals, got "30m"',
    ),
    (
        "[[export]]\ntype = 'individual'\nscope = 'SCOPE_PAGES'",
        'export[1].scope: must not be set for individuals, got "SCOPE_PAGES"',
    ),
    (
        "[nightly]\nsince = 'last tuesday'",
        f'nightly.since: {DATE_RULE}, got "last tuesday"',
    ),
    (
        "[nightly]\nsince = '0001-01-01T00:00:00+05:00'",
        f'nightly.since: {DATE_RULE}, got "0001-01-01T00:00:00+05:00"',
    ),
    # The output directory
    ("[output]\ndirectory = ''", "output.directory: must not be blank"),
    (
        "[output]\ndirectory = '~nobody-of-this-name/x'",
        'output.directory: starts with the home directory of an unknown user, got "~nobody-of-this-name/x"',
    ),
]


@pytest.mark.parametrize(("toml", "reported"), MESSAGES, ids=[reported[:60] for _, reported in MESSAGES])
def test_a_fault_is_one_line_with_place_expectation_and_value(here: Path, toml: str, reported: str) -> None:
    """Each fault is reported in one line, in the words of the config file."""
    assert faults(here, toml) == [reported]


@pytest.mark.parametrize(
    ("variable", "text", "reported"),
    [
        ("ASYNCEXPORT_BUGDET__BURST", "4", "unknown variable (did you mean ASYNCEXPORT_BUDGET__BURST?)"),
        ("ASYNCEXPORT_BUDGET_BURST", "4", "unknown variable (did you mean ASYNCEXPORT_BUDGET__BURST?)"),
        ("ASYNCEXPORT_CONIFG", "x", "unknown variable (did you mean ASYNCEXPORT_CONFIG?)"),
        ("asyncexport_budget__brust", "4", "unknown variable (did you mean ASYNCEXPORT_BUDGET__BURST?)"),
        ("ASYNCEXPORT_QQ", "4", "unknown variable"),
        ("ASYNCEXPORT_API_KEY", "x", "unknown variable: the API key is read from FULLSTORY_API_KEY"),
        ("ASYNCEXPORT_API__KEY", "x", "unknown variable: the API key is read from FULLSTORY_API_KEY"),
        ("ASYNCEXPORT_EXPORT__NAME", "x", "exports can only be set by [[export]] in the file"),
        ("ASYNCEXPORT_EXPORT", "[]", "exports can only be set by [[export]] in the file"),
        ("ASYNCEXPORT_BUDGET__BURST", "many", 'expected a whole number, got "many"'),
        ("ASYNCEXPORT_BUDGET__BURST", "", "expected a whole number"),
        ("ASYNCEXPORT_BUDGET__BURST", "9" * 5000, "expected a whole number, got a hidden text"),
        ("ASYNCEXPORT_BUDGET__REQUESTS_PER_MINUTE", "inf", 'expected a number, got "inf"'),
        ("ASYNCEXPORT_API__HEADERS", "{x", 'expected a JSON object of texts, such as {"X-Team": "data"}'),
        ("ASYNCEXPORT_API__HEADERS", "[1]", 'expected a table of texts, such as {"X-Team" = "data"}'),
        ("ASYNCEXPORT_BUDGET__SCOPE", "\udcff", "expected auto, all or create, got a hidden text"),
        ("ASYNCEXPORT_API__CA_FILE", "\udcff", "must be UTF-8 text"),
    ],
)
def test_a_fault_in_a_variable_is_reported_with_its_name(here: Path, variable: str, text: str, reported: str) -> None:
    """An unknown variable is reported with the nearest known one, and an invalid value with what was expected."""
    assert faults(here, environ={variable: text}) == [f"{variable}: {reported}"]


def test_a_fault_in_a_flag_is_reported_as_such(here: Path) -> None:
    """The message names the command line, even if the file sets the same key."""
    toml = "[concurrency]\ndownloads = 3"
    reported = faults(
        here, toml, flags={"concurrency.downloads": "-3"}, environ={"ASYNCEXPORT_CONCURRENCY__DOWNLOADS": "5"}
    )
    assert reported == ['concurrency.downloads (on the command line): must be at least 1, got "-3"']


def test_an_unprintable_variable_name_is_reported_in_one_line(here: Path) -> None:
    """Undecodable bytes, line breaks and very long names are escaped or cut."""
    reported = faults(here, environ={"ASYNCEXPORT_A\nB\udcff": "", "ASYNCEXPORT_" + "X" * 5000: ""})
    assert reported[0] == r"ASYNCEXPORT_A\nB\udcff...: unknown variable"
    assert all(len(line) < 120 and line.isprintable() for line in reported)


def test_all_faults_of_all_sources_are_reported_at_the_same_time(here: Path) -> None:
    """One error lists every fault in file, environment and flags."""
    toml = """
        burst = 5
        [api]
        base_url = "http://api.fullstory.com"
        connect_timeout = 10
        [budget]
        brust = 5
        burst = "50"
        [polling]
        min_interval = "10 sec"
        expected = "48h"
        [retry]
        attempts = 2.5
        backoff_initial = "10m"
        [[export]]
        name = "checkout"
        type = "individual"
        segment = ""
        bundle = "30m"
        [[export]]
        name = "checkout"
        timezone = "Europe/Berln"
        nmae = 3
    """
    reported = faults(
        here,
        toml,
        environ={"ASYNCEXPORT_API__HEADERS": "{", "ASYNCEXPORT_BUGDET__BURST": "4", "ASYNCEXPORT_OUTPUT__GRACE": "x"},
        flags={"polling.prefer": "fast"},
    )
    assert sorted(line.split(": ")[0] for line in reported) == [
        "ASYNCEXPORT_API__HEADERS",
        "ASYNCEXPORT_BUGDET__BURST",
        "ASYNCEXPORT_OUTPUT__GRACE",
        "api.base_url",
        "api.connect_timeout",
        "budget.brust",
        "budget.burst",
        "burst",
        "export[1].bundle",
        "export[1].segment",
        "export[2].name",
        "export[2].nmae",
        "export[2].timezone",
        "polling.min_interval",
        "polling.operation_deadline",
        "polling.prefer (on the command line)",
        "retry.attempts",
        "retry.backoff_max",
    ]


def test_every_message_is_short_and_in_house_style(here: Path) -> None:
    """A message is one line without a capital at the start, a full stop or pydantic's terms."""
    for toml, _ in MESSAGES:
        for line in faults(here, toml):
            message = line.split(": ", 1)[1]
            assert len(line) < 150
            assert line.isprintable()
            assert message[0].islower()
            assert not message.endswith(".")
            assert not re.search(r"[Ii]nput|valid|pydantic|string|tuple|dict|integer", message)


# Ages of a refresh


@pytest.mark.parametrize(
    ("written", "ages"),
    [
        ("'72h'", (72 * HOUR,)),
        ("'0h'", ()),
        ("[]", ()),
        ("['7d', '48h', '2d', '0h']", (48 * HOUR, 7 * DAY)),
        ("['400d']", (400 * DAY,)),
    ],
)
def test_a_refresh_has_one_age_or_a_list_of_them(here: Path, written: str, ages: tuple[float, ...]) -> None:
    """Ages are sorted without duplicates, the youngest first; "0h" means no refresh."""
    assert read(here, f"[nightly]\nrefresh = {written}").nightly.refresh_seconds == ages


@pytest.mark.parametrize(
    ("text", "ages"),
    [
        ("72h", (72 * HOUR,)),
        ("0h", ()),
        ('["48h", "7d"]', (48 * HOUR, 7 * DAY)),
        ("48h, 7d", (48 * HOUR, 7 * DAY)),
    ],
)
def test_ages_can_be_set_by_a_variable_or_a_flag(here: Path, text: str, ages: tuple[float, ...]) -> None:
    """Several ages are written as JSON or with commas."""
    by_variable = read(here, environ={"ASYNCEXPORT_NIGHTLY__REFRESH": text})
    by_flag = read(here, flags={"nightly.refresh": text})
    assert by_variable.nightly.refresh_seconds == by_flag.nightly.refresh_seconds == ages


def test_ages_that_cannot_be_read_are_reported_where_they_were_set(here: Path) -> None:
    """The message has the variable or the flag, and the position in a list."""
    variable = "ASYNCEXPORT_NIGHTLY__REFRESH"
    assert faults(here, environ={variable: '["48h", "401d"]'}) == [
        f'{variable}[2]: must not be longer than 400d, got "401d"'
    ]
    assert faults(here, flags={"nightly.refresh": "1h,2h"}) == [
        "nightly.refresh (on the command line): has no effect: no age is longer than settle (26h)"
    ]
    for text in ('["48h"', "[48]", "often", ""):
        [reported] = faults(here, environ={variable: text})
        assert reported.startswith(variable)
        assert "expected a duration" in reported


def test_an_age_without_effect_is_warned_about(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An age up to the shortest settle time has no effect; the other ages are used."""
    settings = read(here, "[nightly]\nrefresh = ['24h', '26h', '48h']\n[[export]]\n[[export]]\nname='b'\nsettle='72h'")
    assert settings.nightly.refresh_seconds == (24 * HOUR, 26 * HOUR, 48 * HOUR)
    assert [record.getMessage() for record in caplog.records] == [
        "nightly.refresh: the age 24h has no effect, because settle is 26h",
        "nightly.refresh: the age 26h has no effect, because settle is 26h",
    ]


# Exports


def test_exports_are_read_in_order(here: Path) -> None:
    """Each table is one export; a duplicate field, which the service would refuse, is removed."""
    settings = read(
        here,
        """
        [[export]]
        name = "checkout"
        segment = "user@example.com:4100200300400500"
        format = "csv"
        bundle = "1h30m"
        settle = "36h"
        fields = ["UserId", "evt_*", "UserId", "EventStart"]
        scope = "SCOPE_PAGES"
        timezone = "Europe/Berlin"
        [[export]]
        name = "people"
        type = "individual"
        """,
    )
    definition = Definition(
        "user@example.com:4100200300400500",
        Type.EVENT,
        Format.CSV,
        ("UserId", "evt_*", "EventStart"),
        "SCOPE_PAGES",
        "Europe/Berlin",
    )
    assert settings.exports == (
        Export("checkout", definition, 5_400, 129_600),
        Export("people", Definition(type=Type.INDIVIDUAL), 86_400, 26 * 3600),
    )
    assert all(isinstance(export.bundle_seconds, int) for export in settings.exports)


def test_individuals_may_set_24h_explicitly(here: Path) -> None:
    """A day is the default of individuals and the only width they allow."""
    assert read(here, "[[export]]\ntype = 'individual'\nbundle = '1d'").exports[0].bundle_seconds == 86_400


@given(minutes=st.integers(1, 3_000))
def test_a_width_must_divide_a_day(minutes: int) -> None:
    """Every width from 5m to 24h that divides a day is accepted, and no other."""
    table = {"export": [{"bundle": write_duration(minutes * 60)}]}
    fits = 5 <= minutes <= 1440 and 1440 % minutes == 0
    try:
        assert Settings.model_validate(table).exports[0].bundle_seconds == minutes * 60
    except ValueError:
        assert not fits
    else:
        assert fits


def test_an_unknown_time_zone_is_reported_with_the_nearest(here: Path) -> None:
    """A misspelt time zone is a config error instead of a refused export later."""
    if not zoneinfo.available_timezones():
        pytest.skip("this machine has no time zone database")
    rule = "export[1].timezone: expected an IANA name such as Europe/Berlin"
    reported = faults(here, "[[export]]\ntimezone = 'Amerca/New_York'")
    assert reported == [f'{rule} (did you mean America/New_York?), got "Amerca/New_York"']
    for name in ("Europe", "../../etc/passwd", "/etc/localtime"):
        assert faults(here, f"[[export]]\ntimezone = '{name}'")[0].startswith(
            "export[1].timezone: expected an IANA name"
        )


@pytest.fixture
def _no_time_zones() -> Iterator[None]:
    """A machine without a time zone database."""
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath()


@pytest.mark.usefixtures("_no_time_zones")
def test_without_a_time_zone_database_any_name_is_accepted(here: Path) -> None:
    """The check is then left to the service."""
    if zoneinfo.available_timezones():
        pytest.skip("the tzdata package replaces the machine's database")
    assert read(here, "[[export]]\ntimezone = 'Europe/Berlin'").exports[0].definition.timezone == "Europe/Berlin"


# Nightly


@pytest.mark.parametrize("since", ["2026-01-01", '"2026-01-01"', '"2026-01-01T00:00:00Z"', "2026-01-01T01:00:00+01:00"])
def test_since_is_a_date_with_or_without_quotes(here: Path, since: str) -> None:
    """TOML's own dates and times are accepted as well as text."""
    assert read(here, f"[nightly]\nsince = {since}").nightly.since_at(0.0) == 1_767_225_600


def test_since_may_be_relative(here: Path) -> None:
    """`30d` is counted from today."""
    assert read(here, "[nightly]\nsince = 'today'").nightly.since_at(1_767_225_601.5) == 1_767_225_600
    assert read(here, "[nightly]\nsince = '30d'").nightly.since_at(1_767_225_601.5) == 1_767_225_600 - 30 * 86_400


# The service's host and the connection to it


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("na1.abc", "https://api.fullstory.com"),
        ("eu1.abc", "https://api.eu1.fullstory.com"),
        ("oldkeywithoutprefix", "https://api.fullstory.com"),
    ],
)
def test_auto_uses_the_host_of_the_keys_data_centre(here: Path, key: str, host: str) -> None:
    """The prefix of the key says which data centre it belongs to."""
    assert ApiKey(key).base_url(read(here).api.base_url) == host


@pytest.mark.parametrize(
    "url",
    [
        "https://proxy.example.com/fullstory",
        "http://localhost:8123",
        "http://127.0.0.1:1",
        "http://127.9.9.9",
        "http://[::1]:80",
    ],
)
def test_a_base_url_is_used_as_given(here: Path, url: str) -> None:
    """Any https host and, by http, this machine may be set, whatever the key's prefix."""
    assert ApiKey("eu1.abc").base_url(read(here, f"[api]\nbase_url = '{url}/'").api.base_url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.fullstory.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0",
        "http://2130706433",
    ],
)
def test_http_to_another_machine_is_rejected(here: Path, url: str) -> None:
    """The key is never sent unencrypted to another machine."""
    reported = "api.base_url: must be https: over http, others could read the key (http is allowed for localhost only)"
    assert faults(here, f"[api]\nbase_url = '{url}'") == [reported]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.fullstory.com",
        "ftp://localhost",
        "https://",
        "https://host:port",
        "https://ho st",
        "http://localhost\\@example.com",
        "http://local\thost",
        "https://bücher.example",
        "Auto",
        CANARY,
    ],
)
def test_an_invalid_base_url_is_rejected_and_not_repeated(here: Path, url: str) -> None:
    """The text may be the key, so the message does not contain it."""
    assert faults(here, environ={"ASYNCEXPORT_API__BASE_URL": url}) == [
        'ASYNCEXPORT_API__BASE_URL: expected "auto" or a URL such as "https://host"'
    ]


@pytest.mark.parametrize(
    ("url", "reported"),
    [
        ("https://me:secret@host", "must not contain a user or a password"),
        ("https://me@host", "must not contain a user or a password"),
        ("http://localhost@example.com", "must not contain a user or a password"),
        ("https://host/?a=b", "must not contain a query or a fragment"),
        ("https://host?", "must not contain a query or a fragment"),
        ("https://host#x", "must not contain a query or a fragment"),
    ],
)
def test_a_base_url_contains_only_a_host_and_a_path(here: Path, url: str, reported: str) -> None:
    """Passwords and queries are rejected, and not repeated."""
    assert faults(here, f"[api]\nbase_url = '{url}'") == [f"api.base_url: {reported}"]


@pytest.mark.parametrize("proxy", ["", "environment", "http://user:pass@proxy:3128", "https://[::1]:8080"])
def test_a_proxy_is_a_url_or_taken_from_the_environment(here: Path, proxy: str) -> None:
    """No proxy, the environment's, or a URL with user and password may be set."""
    assert read(here, f"[api]\nproxy = '{proxy}'").api.proxy == proxy


@pytest.mark.parametrize("proxy", ["socks5://user:pass@proxy:1080", "proxy:3128", "Environment"])
def test_another_kind_of_proxy_is_rejected(here: Path, proxy: str) -> None:
    """An unsupported proxy is reported before the first request, without its password."""
    reported = 'api.proxy: expected "", "environment" or a URL such as "http://host:3128"'
    assert faults(here, f"[api]\nproxy = '{proxy}'") == [reported]


def test_a_ca_file_must_exist(here: Path) -> None:
    """A missing certificate file is a config error, not an error of the first request."""
    assert faults(here, "[api]\nca_file = '/nope.pem'") == [
        "api.ca_file: the file does not exist, or this user cannot reach it"
    ]
    file = here / "ca.pem"
    file.touch()
    assert read(here, f"[api]\nca_file = '{file}'").api.ca_file == file


def test_a_tilde_is_the_users_home(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is expanded, and no directory named `~` is created."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read(here, "[output]\ndirectory = '~/exports'").output.directory == Path("/home/somebody/exports")


@pytest.mark.parametrize(
    ("headers", "reported"),
    [
        (
            '{ AUTHORIZATION = "Basic x" }',
            "api.headers: must not set AUTHORIZATION: requests are authorized by the API key alone",
        ),
        ('{ host = "a.example" }', "api.headers: must not set host: the host is set by [api] base_url"),
        ('{ X = "a\\nb" }', "api.headers: must contain one line of printable text per header"),
        ('{ "a b" = "c" }', "api.headers: contains a name that no header may have"),
        ('{ "" = "c" }', "api.headers: contains a name that no header may have"),
        ("{ X = 1234567 }", "api.headers.X: expected text in quotes"),
        ('["X"]', 'api.headers: expected a table of texts, such as {"X-Team" = "data"}'),
    ],
)
def test_headers_are_printable_text_and_never_the_key(here: Path, headers: str, reported: str) -> None:
    """An invalid header is reported without its value."""
    assert faults(here, f"[api]\nheaders = {headers}") == [reported]


# Secrets


@pytest.mark.parametrize("table", ["api", "budget", "export"])
@pytest.mark.parametrize("name", ["key", "api_key", "token", "FULLSTORY_API_KEY"])
def test_a_key_in_the_file_is_reported_with_where_it_belongs(here: Path, table: str, name: str) -> None:
    """The message says where to put the key and does not contain it."""
    opening = "[[export]]" if table == "export" else f"[{table}]"
    (reported,) = faults(here, f"{opening}\n{name} = '{CANARY}'")
    assert reported.endswith("must not be in the settings: set FULLSTORY_API_KEY, or name a file in [api] api_key_file")
    assert CANARY not in reported


@pytest.mark.slow
@pytest.mark.parametrize("key", [CANARY, "TGVnYWN5S2V5V2l0aG91dEFQcmVmaXg6c2VjcmV0", f"Basic {CANARY}", "na1.short"])
def test_a_key_in_the_wrong_place_is_never_repeated(here: Path, key: str) -> None:
    """No message and no `repr` of the settings contains a key pasted as a value or a name."""
    for table, names in known_keys().items():
        for name in names:
            for toml in (
                f'{table}.{name} = "{key}"',
                f'{table}.{name} = ["{key}"]',
                f'{table}.{name} = {{"{key}" = 1}}',
            ):
                text = toml if table != "export" else f"[[export]]\n{toml.removeprefix('export.')}"
                assert key not in text_shown_for(here, text), text
    for toml in (f'"{key}" = 1', f'["{key}"]', f'[budget]\n"{key}" = 1'):
        assert key not in " ".join(faults(here, toml))


def test_the_settings_hide_proxy_passwords_and_headers(here: Path) -> None:
    """Neither `repr` nor `str` of the settings contains them."""
    settings = read(here, "[api]\nproxy = 'http://me:canary@host'\nheaders = { X-Secret = 'canary' }")
    assert "canary" not in repr(settings)
    assert "canary" not in str(settings)


# The key


def test_the_key_comes_from_the_environment_before_the_file(here: Path) -> None:
    """The order is FULLSTORY_API_KEY, FULLSTORY_API_TOKEN, first line of the file; empty means not set."""
    file = here / "key"
    file.write_text("na1.fromfile\nsecond line\n")
    file.chmod(0o600)
    settings = read(here, f"[api]\napi_key_file = '{file}'")
    both = {"FULLSTORY_API_KEY": "na1.key", "FULLSTORY_API_TOKEN": "na1.token"}
    assert load_key(both, file=settings.api.api_key_file).reveal() == "na1.key"
    assert load_key({**both, "FULLSTORY_API_KEY": " "}, file=settings.api.api_key_file).reveal() == "na1.token"
    assert load_key({}, file=settings.api.api_key_file).reveal() == "na1.fromfile"
    assert load_key({}, file=settings.api.api_key_file).notes == ()


def test_a_missing_key_is_reported_with_where_to_put_one(here: Path) -> None:
    """The hint names the variable and the setting."""
    with pytest.raises(UnauthorizedError, match="there is no API key") as caught:
        load_key({}, file=read(here).api.api_key_file)
    assert caught.value.hint == "set FULLSTORY_API_KEY, or set [api] api_key_file to a file that contains the key"


@pytest.mark.parametrize(
    "pasted",
    [
        CANARY,
        f"  {CANARY}\r\n",
        f'"{CANARY}"',
        f"'{CANARY}'",
        f"Basic {CANARY}",
        f"basic  {CANARY}",
        f"Authorization: Basic {CANARY}",
    ],
)
def test_text_pasted_along_with_the_key_is_removed(here: Path, pasted: str) -> None:
    """Quotes, line ends and the header that it was copied from are ignored."""
    assert load_key({"FULLSTORY_API_KEY": pasted}, file=read(here).api.api_key_file).reveal() == CANARY


@pytest.mark.parametrize(
    ("pasted", "reported"),
    [
        ("na1.abc def", "the API key in FULLSTORY_API_KEY contains white space"),
        ("na1.abc\ndef", "the API key in FULLSTORY_API_KEY contains white space"),
        ("na1.abc\u00a0def", "the API key in FULLSTORY_API_KEY contains white space"),
        ("na1.ab\u2026", "the API key in FULLSTORY_API_KEY contains a character that is not allowed in a key"),
        ("na1.ab\x00c", "the API key in FULLSTORY_API_KEY contains a character that is not allowed in a key"),
        ("na1.ab\udcff", "the API key in FULLSTORY_API_KEY contains a character that is not allowed in a key"),
        ("Basic ", "FULLSTORY_API_KEY does not contain an API key"),
        ('""', "FULLSTORY_API_KEY does not contain an API key"),
        ("Bearer na1.abc", "FULLSTORY_API_KEY does not contain an API key"),
    ],
)
def test_an_invalid_key_is_rejected_and_not_repeated(here: Path, pasted: str, reported: str) -> None:
    """The message names the variable and shows nothing of its value."""
    with pytest.raises(UnauthorizedError) as caught:
        load_key({"FULLSTORY_API_KEY": pasted}, file=read(here).api.api_key_file)
    assert str(caught.value) == reported
    assert "na1" not in caught.value.hint


def test_a_key_file_that_others_can_read_is_noted(here: Path) -> None:
    """The key is used, and a note says how to restrict the file."""
    file = here / "key"
    file.write_text(CANARY)
    file.chmod(0o644)
    key = load_key({}, file=read(here, f"[api]\napi_key_file = '{file}'").api.api_key_file)
    assert key.notes == (f"every user of this machine can read the API key; to prevent that: chmod 600 {file}",)
    assert CANARY not in key.notes[0]


def test_a_key_file_that_cannot_be_used_is_reported(here: Path) -> None:
    """A missing or empty file and a directory are reported without repeating a key given instead of the path."""
    cases: list[tuple[str, type[Exception], str]] = [
        (str(here / "nope"), ConfigError, "api.api_key_file: cannot be read: no such file or directory"),
        (str(here), ConfigError, "api.api_key_file: cannot be read: is a directory"),
        ("/dev/null", UnauthorizedError, "the first line of [api] api_key_file is empty"),
        ("TGVnYWN5S2V5V2l0aG91dA", ConfigError, "api.api_key_file: cannot be read: no such file or directory"),
    ]
    for name, kind, reported in cases:
        with pytest.raises(kind) as caught:
            load_key({}, file=read(here, f"[api]\napi_key_file = '{name}'").api.api_key_file)
        assert str(caught.value) == reported


def test_a_key_instead_of_its_file_name_is_reported(here: Path) -> None:
    """A key set as the file name is recognised by its prefix."""
    reported = ["api.api_key_file: looks like an API key: expected a file name"]
    assert faults(here, f"[api]\napi_key_file = '{CANARY}'") == reported


def test_the_key_is_only_revealed_on_request() -> None:
    """Neither `str`, `repr` nor formatting shows the key."""
    key = ApiKey(CANARY, notes=("a note",))
    for shown in (str(key), repr(key), f"{key}", f"{key!r:>40}", f"{[key]}", f"{ {'k': key} }"):
        assert CANARY not in shown
    with pytest.raises(TypeError):
        vars(key)
    assert key.reveal() == CANARY


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10),
        ("30m", 1800),
        ("24h", 86_400),
        ("1h30m", 5_400),
        ("7d", 604_800),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5_400),
        ("0h", 0),
        (" 90s ", 90),
    ],
)
def test_a_duration_is_read_as_users_write_it(text: str, seconds: float) -> None:
    """A duration is made of numbers with units, the larger unit first."""
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "10", "s", "-5s", "1m1h", "5s5s", "10 s", "1e3s", "10S", "5w", "٣s", "1..5s"]
)
def test_an_invalid_duration_is_rejected(text: str) -> None:
    """A missing or unknown unit, a wrong order or a sign is an error."""
    with pytest.raises(ValueError, match="expected a duration such as"):
        read_duration(text)


@given(st.integers(0, 3_650 * 86_400 * 1_000_000))
def test_a_written_duration_reads_as_itself(microseconds: int) -> None:
    """Writing and reading a duration returns the same value, to the microsecond."""
    seconds = microseconds / 1_000_000
    assert read_duration(write_duration(seconds)) == pytest.approx(seconds, rel=0, abs=1e-6)


@given(st.integers(0, 3_650 * 86_400))
def test_whole_seconds_are_exact(seconds: int) -> None:
    """Whole seconds are not rounded."""
    assert read_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (60, "1m"), (90, "1m30s"), (86_400, "24h"), (604_800, "7d")],
)
def test_a_duration_is_written_as_users_write_it(seconds: float, text: str) -> None:
    """The text is short and uses the units of the config file."""
    assert write_duration(seconds) == text


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_an_error(text: str) -> None:
    """No text causes another error than a ValueError with a clear message."""
    try:
        seconds, refusal = read_duration(text), "expected a duration"
    except ValueError as error:
        seconds, refusal = 0.0, str(error)
    assert 0 <= seconds <= 3_650 * 86_400
    assert refusal.startswith(("expected a duration", "must not be longer"))


# The example


def test_the_example_in_the_repository_equals_the_installed_one() -> None:
    """`config.example.toml` and what `init` writes are the same text."""
    top = Path(__file__).parents[1] / "config.example.toml"
    assert top.read_text(encoding="utf-8") == EXAMPLE


def test_the_example_contains_every_setting_and_no_other() -> None:
    """The keys of the example are the known settings."""
    shown = tomllib.loads(EXAMPLE)
    shown["export"] = shown["export"][0]
    known = known_keys()
    for table in [name for name in known if "." in name]:
        outer, inner = table.split(".")
        shown[table] = shown[outer].pop(inner)
    assert {table: set(keys) for table, keys in shown.items()} == {t: set(keys) for t, keys in known.items()}


def test_the_example_shows_the_real_defaults(here: Path) -> None:
    """Each value, alone and together with the others, equals the default."""
    assert read(here, EXAMPLE) == Settings()
    for table, values in tomllib.loads(EXAMPLE).items():
        given = [values[0]] if table == "export" else values
        assert Settings.model_validate({table: given}) == Settings()


def test_the_example_has_a_comment_for_each_setting() -> None:
    """A comment is above every setting, and no line is longer than 120 characters."""
    lines = EXAMPLE.splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        assert len(line) <= 120
        if re.match(r"\w+ = ", line):
            assert above.startswith("# "), line
