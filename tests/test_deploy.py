# ruff: noqa: F811 - fixtures are imported by their names
"""`deploy`: the printed files fit the configuration, and a run reports itself to systemd."""

import ast
import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.cli import main
from asyncexport.cli.service_manager import ServiceManager
from asyncexport.core.exits import Exit
from asyncexport.deploy import (
    Deployment,
    PrintedFile,
    airflow_files,
    cron_files,
    kubernetes_files,
    systemd_files,
)
from tests.json_lines import check
from tests.test_cli import DAYS, run, service, shared  # noqa: F401 - fixtures

TARGETS = ("systemd", "cron", "kubernetes", "airflow")

DEPLOYMENT = Deployment(
    name="asyncexport",
    program=("/opt/asyncexport/bin/asyncexport",),
    config=Path("/etc/asyncexport/asyncexport.toml"),
    working_directory=Path("/srv"),
    directory=Path("/srv/exports"),
    key_file=Path("/etc/asyncexport/api-key"),
    names=(),
    sets=(),
    overrides_directory=False,
    max_duration="5h",
    max_duration_seconds=18_000.0,
    stop_seconds=100,
    settle_seconds=93_600,
    hour=3,
    minute=10,
    user="exporter",
)

WORDS = st.text(st.sampled_from("ab %$\\'\"\\;#()é{}-="), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def records(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Return what `deploy` prints as JSON."""
    assert main(["--json", "deploy", *arguments]) == 0
    return [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]


def systemd_words(line: str) -> list[str]:
    """Return the words of a command line as systemd reads it (systemd.service, "Command lines")."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    read = [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in words]
    assert not any(re.search(r"(?<!%)(%%)*%(?!%)|(?<!\$)(\$\$)*\$(?!\$)", word) for word in read), read
    return [word.replace("%%", "%").replace("$$", "$") for word in read]


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_every_word_reaches_the_program_unchanged(words):
    """Spaces, quotes, `%` and `$` mean something different in each format, and nothing in the words."""
    deployment = replace(DEPLOYMENT, sets=tuple(words))
    expected = deployment.command("nightly")
    service, _ = systemd_files(deployment)
    assert exec_start(service) == expected
    (crontab,) = cron_files(deployment)
    typed = read_by_cron(crontab.text.splitlines()[-1].split(" ", 5)[5])
    assert shlex.split(typed)[4:] == [expected[0], "-q", *expected[1:]]
    (dag,) = airflow_files(deployment)
    assert list(value_of(dag, "COMMAND")) == deployment.command("nightly", "--success-exit", "9")
    arguments = cron_job(deployment)["containers"][0]["args"]
    assert [word.replace("$$", "$") for word in arguments] == [
        "-c",
        "/etc/asyncexport/asyncexport.toml",
        "nightly",
        "--success-exit",
        "9",
        "-d",
        "/data/exports",
        *expected[4:],
    ]


def exec_start(service: PrintedFile) -> list[str]:
    """Return the command line of a service."""
    (line,) = re.findall(r"(?m)^ExecStart=(.*)$", service.text)
    return systemd_words(line)


@pytest.mark.parametrize("folder", ["p$x", "p'x", 'p"x', "p\\x"])
def test_systemd_starts_a_program_with_an_odd_path(folder):
    """It refuses some of these paths itself and does not find others; the shell starts the same words."""
    words = (f"/opt/{folder}/asyncexport", "-m", "x")
    deployment = replace(DEPLOYMENT, program=words)
    command = exec_start(systemd_files(deployment)[0])
    assert command == ["/bin/sh", "-c", 'exec "$0" "$@"', *deployment.command("nightly")]
    ran = subprocess.run([*command[:3], "/bin/echo", *command[4:]], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == command[4:]


def test_a_line_of_systemd_does_not_continue_the_next():
    """A backslash at its end would swallow the user, and the service would run as root."""
    for name in ("a\\", "a "):
        (service, _) = systemd_files(replace(DEPLOYMENT, working_directory=Path("/srv") / name))
        assert f"\nWorkingDirectory=/srv/{name}/\nUser=exporter\n" in service.text


def read_by_cron(command: str) -> str:
    """Return what cron passes to the shell: the command up to the first `%` without a backslash."""
    pairs = re.findall(r"\\.|[^\\]", command)
    assert "%" not in pairs, "cron ends the command there"
    return "".join("%" if pair == r"\%" else pair for pair in pairs)


def value_of(dag: PrintedFile, name: str) -> Any:
    """Return the value of a constant in a DAG."""
    found = [
        node.value
        for node in ast.parse(dag.text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(found[0])


def cron_job(deployment: Deployment) -> dict[str, Any]:
    """Return the pod of the CronJob."""
    (file,) = kubernetes_files(deployment, image="asyncexport:0.1.0")
    _, job = yaml.safe_load_all(file.text)
    pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def test_the_files_fit_the_present_configuration(capsys, tmp_path):
    """They name this configuration file, the output directory of -d, and the maximum duration."""
    assert main(["init"]) == 0
    capsys.readouterr()
    for target in TARGETS:
        *files, summary = records(capsys, target, "-d", "elsewhere", "--max-duration", "4h", "--at", "2:05")
        text = "".join(file["text"] for file in files)
        assert summary["exit_code"] == 0
        assert "4h" in text
        if target == "kubernetes":
            assert "/data/exports" in text
            assert f"--from-file=asyncexport.toml={tmp_path}/asyncexport.toml" in text
        else:
            assert str(tmp_path / "asyncexport.toml") in text
            assert str(tmp_path / "elsewhere") in text
        assert {"systemd": "02:05:00 UTC", "cron": "\n5 2 * * * "}.get(target, "5 2 * * *") in text


def test_without_a_configuration_file_none_is_named(capsys):
    """The defaults are used on the other side, too."""
    for target in TARGETS:
        *files, _ = records(capsys, target)
        text = "".join(file["text"] for file in files)
        assert "asyncexport.toml" not in text
        assert not re.search(r"\n\n\n\n|\$\w+\}", text)


def test_the_key_file_is_that_of_the_configuration(capsys, tmp_path):
    """`[api] api_key_file` is named with its absolute path; the key itself is not read."""
    Path("key").write_text("na1.SECRET")
    Path("asyncexport.toml").write_text('[api]\napi_key_file = "key"\n')
    for target in TARGETS:
        *files, _ = records(capsys, target)
        text = "".join(file["text"] for file in files)
        assert str(tmp_path / "key") in text
        assert "SECRET" not in text


@pytest.mark.parametrize("end", [" ", "\\"])
def test_a_key_file_that_would_break_a_line_is_refused(capsys, end):
    """The next line of the unit would become a part of its name."""
    assert main(["deploy", "systemd", "--set", f"api.api_key_file=/x/key{end}y"]) == 0
    Path("asyncexport.toml").write_text(f"[api]\napi_key_file = '/x/key{end}'\n")
    assert main(["deploy", "systemd"]) == Exit.USAGE
    assert "api.api_key_file: must not end with a space or a backslash" in capsys.readouterr().err


def test_settings_that_the_files_pass_on_are_not_repeated(capsys, tmp_path):
    """`--set` would override the scheduler's copy of the key, and `-d` cannot be combined with the same setting."""
    sets = ["--set", "api.api_key_file=key", "--set", " output.directory = there", "--set", "budget.burst=40"]
    for target in TARGETS:
        *files, _ = records(capsys, target, *sets)
        text = "".join(file["text"] for file in files)
        assert "api.api_key_file=" not in text
        assert not re.search(r"output\.directory\s*=", text)
        assert "budget.burst=40" in text
        assert str(tmp_path / "key") in text
        assert (str(tmp_path / "there") in text) is (target != "kubernetes")


def test_runs_load_days_if_asked_to(capsys):
    """`--load` is in each command; in a cluster, the load directory is on the volume and the memory is enough."""
    Path("asyncexport.toml").write_text('[load]\nmemory = "2GiB"\n[load.postgres]\ndsn_file = "dsn"\n')
    for target in TARGETS:
        *files, _ = records(capsys, target, "--load", "--set", "output.mirror=s3://bucket")
        assert "--load" in "".join(file["text"] for file in files)
    assert main(["deploy", "kubernetes", "--load"]) == 0
    printed = capsys.readouterr()
    assert '"load.directory=/data/warehouse"' in printed.out
    assert "memory: 2504Mi" in printed.out
    assert "[load.postgres] dsn_file is a path on this machine" in printed.err
    assert main(["deploy", "cron", "--load", "--set", "load.directory=exports"]) == Exit.USAGE
    assert "load.directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("configured", "needed"),
    [
        ('[output]\nmirror = "s3://bucket"\n', ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]),
        ('[output]\nmirror = "gs://bucket"\n', ["GOOGLE_APPLICATION_CREDENTIALS"]),
        ('[load]\nto = ["postgres"]\n', ["ASYNCEXPORT_LOAD__POSTGRES__DSN"]),
        ('[load]\nto = ["postgres"]\n[load.postgres]\ndsn_file = "dsn"\n', []),
        ('[load]\nto = ["parquet", "duckdb"]\n', []),
    ],
)
def test_runs_get_the_variables_of_their_destinations(capsys, monkeypatch, configured, needed):
    """Each file says which ones they need and where to put them, and passes them on; values are never printed."""
    Path("asyncexport.toml").write_text(configured)
    Path("dsn").write_text("postgresql://CANARY")
    monkeypatch.setenv("ASYNCEXPORT_LOAD__POSTGRES__DSN", "postgresql://CANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY")
    passing = {
        "systemd": "\nEnvironmentFile=-/etc/asyncexport/environment\n",
        "cron": ". /etc/asyncexport/environment; }",
        "kubernetes": "- secretRef: { name: asyncexport-environment, optional: true }\n",
        "airflow": "gets the environment of the Airflow worker",
    }
    for target in TARGETS:
        load = ["--load"] if "[load]" in configured else []
        assert main(["deploy", target, *load]) == 0
        printed = capsys.readouterr()
        assert (passing[target] in printed.out) is bool(needed)
        assert all(name in printed.out and name in printed.err for name in needed)
        assert "CANARY" not in printed.out + printed.err


def test_the_crontab_passes_variables_on():
    """From the file, if there is one, with whatever is in a value."""
    file = Path("environment")
    deployment = replace(DEPLOYMENT, program=("/usr/bin/env",), working_directory=Path.cwd(), variables=("X",))
    (crontab,) = cron_files(deployment)
    command = crontab.text.splitlines()[-1].split(" ", 5)[5].replace("/etc/asyncexport/environment", "./environment")
    for content in ("", "AWS_ACCESS_KEY_ID='a b$c'\nAWS_REGION=eu\n"):
        if content:
            file.write_text(content)
        asked = command.partition(" -q ")[0]
        ran = subprocess.run(["sh", "-c", asked], capture_output=True, text=True, check=True)
        assert ("AWS_ACCESS_KEY_ID=a b$c" in ran.stdout.splitlines()) is bool(content)
        assert "ASYNCEXPORT_API__API_KEY_FILE=/etc/asyncexport/api-key" in ran.stdout.splitlines()


@pytest.mark.parametrize("name", ["123", "1e5", "null", "true", "no", "0x1", "on"])
def test_a_name_is_text_for_kubernetes(name):
    """YAML reads some names as numbers or as true, unless they are quoted."""
    (file,) = kubernetes_files(replace(DEPLOYMENT, name=name), image="x")
    volume, job = yaml.safe_load_all(file.text)
    assert (volume["metadata"]["name"], job["metadata"]["name"]) == (f"{name}-exports", name)


@pytest.mark.parametrize("name", ["plain", "a b", "a=b", "a,b", 'a"b', "it's"])
def test_kubectl_reads_the_key_from_any_path(name):
    """It takes `=`, `,` and quotes in `--from-file` for its own; standard input has no name."""
    path = f"/keys/{name}"
    (file,) = kubernetes_files(replace(DEPLOYMENT, key_file=Path(path)), image="x")
    (line,) = re.findall(r"(?m)^# 2\. (.*)$", file.text)
    words = shlex.split(line)
    expected = (
        [f"--from-file=api-key={path}"]
        if name in ("plain", "a b", "it's")
        else ["--from-file=api-key=/dev/stdin", "<", path]
    )
    assert words == ["kubectl", "create", "secret", "generic", "asyncexport-key", *expected]


@pytest.mark.parametrize("wrong", ["0001-01-01", "9999-12-31", "2009-12-31", "soon"])
def test_the_first_day_of_a_history_is_one_that_airflow_can_start_with(capsys, wrong):
    """A DAG with a wrong one could not be loaded, or would start tasks for two thousand years."""
    assert main(["deploy", "airflow", "--start", wrong]) == Exit.USAGE
    assert "asyncexport: error: --start: " in capsys.readouterr().err


def test_exit_codes_decide_what_is_tried_again():
    """Each scheduler retries after an outage, and not where that does not help."""
    service, timer = (file.text for file in systemd_files(DEPLOYMENT))
    assert "\nType=notify\n" in service
    assert "\nSuccessExitStatus=9 143\n" in service
    assert "\nRestartPreventExitStatus=2 3 4 6 7 8\n" in service
    assert "\nOnCalendar=*-*-* 03:10:00 UTC\n" in timer
    assert "\nPersistent=true\n" in timer
    (file,) = kubernetes_files(DEPLOYMENT, image="x")
    job = list(yaml.safe_load_all(file.text))[-1]["spec"]
    rule = job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]
    assert (job["concurrencyPolicy"], job["timeZone"]) == ("Forbid", "Etc/UTC")
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2, 3, 6, 7, 8])
    (dag,) = airflow_files(DEPLOYMENT)
    assert value_of(dag, "FINAL_CODES") == {2, 3, 6, 7, 8}


def test_a_task_per_interval_exports_only_settled_data():
    """The shift of two days grows with `settle`, and an interval whose end is not settled does not go green."""
    (dag,) = airflow_files(DEPLOYMENT, start="2026-01-01")
    assert "SHIFT = timedelta(days=2)" in dag.text
    assert '"--require-end"' in dag.text
    assert value_of(dag, "COMMAND") == DEPLOYMENT.command("backfill")
    (dag,) = airflow_files(replace(DEPLOYMENT, settle_seconds=3 * 86_400), start="2026-01-01")
    assert "SHIFT = timedelta(days=3)" in dag.text


def test_files_are_written_once(capsys):
    """`--into` writes them and does not overwrite; `--force` does."""
    assert main(["deploy", "systemd", "--into", "."]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["asyncexport.service", "asyncexport.timer"]
    assert main(["deploy", "systemd", "--into", "."]) == Exit.USAGE
    assert capsys.readouterr().err.splitlines() == [
        "asyncexport: error: --into: asyncexport.service already exists",
        "asyncexport: error: --into: asyncexport.timer already exists",
        "asyncexport: hint: `--force` overwrites it",
    ]
    Path("asyncexport.timer").write_text("")
    assert main(["deploy", "systemd", "--into", ".", "--force"]) == 0
    assert Path("asyncexport.timer").read_text()


def test_all_faults_are_reported_together(capsys):
    """Wrong options and a wrong configuration cost one attempt."""
    Path("asyncexport.toml").write_text("[nightly]\nrefesh = '48h'\n")
    wrong = ["--at", "25:00", "--image", "x", "--name", "A_B", "--into", "nowhere", "--start", "2026-13-01"]
    assert main(["deploy", "cron", *wrong, "--set", "ping.url=https://example.com/x"]) == Exit.USAGE
    errors = capsys.readouterr().err
    for named in (
        "--at",
        "--image",
        "--name",
        "--into",
        "--start",
        "--set: ping.url",
        "asyncexport.toml: nightly.refesh",
    ):
        assert f"asyncexport: error: {named}" in errors, errors
    assert "example.com" not in errors


@pytest.mark.parametrize("wrong", ["0s", "25h", "soon"])
def test_a_night_takes_less_than_a_day(capsys, wrong):
    """A longer run would still be active when the next one begins."""
    assert main(["deploy", "cron", "--max-duration", wrong]) == Exit.USAGE
    assert "asyncexport: error: --max-duration: " in capsys.readouterr().err


def test_settings_of_this_shell_are_named(capsys, monkeypatch):
    """A scheduler does not have the variables of this shell."""
    monkeypatch.setenv("ASYNCEXPORT_BUDGET__BURST", "40")
    monkeypatch.setenv("ASYNCEXPORT_API__HEADERS", '{"X-Team": "CANARY"}')
    assert main(["deploy", "cron"]) == 0
    captured = capsys.readouterr()
    assert "hint: ASYNCEXPORT_API__HEADERS, ASYNCEXPORT_BUDGET__BURST: set in this shell" in captured.err
    assert "CANARY" not in captured.out + captured.err


def test_a_path_with_a_line_break_is_refused(capsys, tmp_path, monkeypatch):
    """No file could hold it in one line."""
    folder = tmp_path / "a\nb"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert main(["deploy", "cron"]) == Exit.USAGE
    assert "has a character that cannot be printed" in capsys.readouterr().err


def test_the_crontab_is_a_command_for_the_shell():
    """It changes to the working directory and passes the key file; `sh` runs it."""
    (file,) = cron_files(replace(DEPLOYMENT, program=("/bin/echo",), working_directory=Path("/")))
    *_, line = file.text.splitlines()
    assert re.match(r"10 3 \* \* \* cd / && ASYNCEXPORT_API__API_KEY_FILE=/etc/asyncexport/api-key ", line)
    ran = subprocess.run(["sh", "-c", line.split(" ", 5)[5]], capture_output=True, text=True, check=True)
    assert ran.stdout == "-q -c /etc/asyncexport/asyncexport.toml nightly --max-duration 5h\n"


class Manager:
    """A socket on which systemd would listen."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)

    def messages(self) -> list[str]:
        """Return what has arrived."""
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self._socket.recv(4096).decode())
        return found

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture(params=["./notify", "@asyncexport-{}"])
def address(request: pytest.FixtureRequest) -> str:
    """Return the address of a socket: a file, or an abstract name."""
    return str(request.param).format(os.getpid())


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    found = Manager(address)
    yield found
    found.close()


async def test_a_run_reports_itself(manager, address):
    """It says that it has begun, what it does, that it is alive, and that it stops."""
    sender = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())})
    async with sender.run("nightly into exports"):
        sender.report("3 of 4\nbundles")
        found: list[str] = []
        while found.count("WATCHDOG=1") < 2:
            await asyncio.sleep(0)
            found += manager.messages()
    assert found[:2] == ["READY=1\nSTATUS=nightly into exports", "STATUS=3 of 4 bundles"]
    assert manager.messages()[-1] == "STOPPING=1"


@pytest.mark.parametrize("changed", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
async def test_no_sign_of_life_is_sent_unless_expected(manager, address, changed):
    """The watchdog may be off, or meant for another process."""
    sender = ServiceManager({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000", **changed})
    async with sender.run("nightly"):
        await asyncio.sleep(0)
    assert manager.messages() == ["READY=1\nSTATUS=nightly", "STOPPING=1"]


@pytest.mark.parametrize("name", ["", "./gone", "relative\0", "x" * 200])
async def test_a_run_does_not_need_systemd(name):
    """Without a socket, or with one that nobody reads, nothing happens."""
    sender = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000"})
    async with sender.run("nightly"):
        sender.report("text")
        await asyncio.sleep(0)


@pytest.mark.slow
def test_a_command_reports_itself(run, service, monkeypatch):
    """A run that systemd started says that it has begun, what it does, and that it stops; another command does not."""
    manager = Manager("notify")
    monkeypatch.setenv("NOTIFY_SOCKET", "notify")
    monkeypatch.setenv("WATCHDOG_USEC", "300000000")
    assert run("-q", "backfill", *DAYS).code == 0
    found = manager.messages()
    assert found[0].startswith("READY=1\nSTATUS=backfill everyone-events from 2026-01-01")
    assert found[1:] == ["WATCHDOG=1", "STOPPING=1"]
    assert run("status").code == 0
    assert manager.messages() == []
    manager.close()
