"""The files of `deploy` in the real checkers: nothing on stderr, and a broken twin of each file is found.

Airflow is large, so its check is a separate one: `.ci/airflow` installs Airflow and sets AIRFLOW_PYTHON.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asyncexport.cli import main
from asyncexport.config import EXAMPLE
from asyncexport.deploy import systemd_files
from tests.test_deploy import DEPLOYMENT

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 200.0

SCHEMAS = ("1.31", "1.37")
"""The versions of Kubernetes whose schemas are used: the oldest that the file is made for, and a new one."""

AIRFLOW = os.environ.get("AIRFLOW_PYTHON", "")

LOAD = """\
import json, signal, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
codes = {}

class Stopped(Exception):
    pass

def stop(*_):
    raise Stopped

signal.signal(signal.SIGALRM, stop)
for dag in bag.dags.values():
    (task,) = dag.tasks
    names = task.python_callable.__globals__
    for code in (0, 2, 3, 5, 9):
        names["COMMAND"][:] = [sys.executable, "-c", f"import sys; print('output'); sys.exit({code})"]
        try:
            times = {} if not dag.catchup else {"data_interval_start": dag.start_date}
            task.python_callable(**times)
        except Exception as error:
            codes[code] = type(error).__name__
        else:
            codes[code] = "success"
    names["COMMAND"][:] = ["sh", "-c", "trap 'echo saved; exit 143' TERM; echo begun; while :; do sleep 0.1; done"]
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        task.python_callable(**times)
    except Stopped:
        print("the task was stopped")
print(json.dumps({"errors": list(bag.import_errors.values()), "dags": sorted(bag.dags), "codes": codes}))
"""
"""Loads a DAG as Airflow does and calls its task with programs that end with various codes."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with a configuration, whose name needs quoting in every format."""
    found = tmp_path / "a b%c'd"
    found.mkdir()
    monkeypatch.chdir(found)
    (found / "asyncexport.toml").write_text(EXAMPLE.replace('mirror = ""', 'mirror = "s3://bucket"'))
    return found


def checked(command: list[str], **environment: str) -> tuple[int, str, str]:
    """Return the exit code of a checker, its output and its errors."""
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, **environment},
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def break_file(path: Path, old: str, new: str) -> None:
    """Change a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {path.name}"
    path.write_text(text.replace(old, new))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_accepts_the_units(folder):
    """`systemd-analyze verify` says nothing, and finds an unknown key, a wrong time and a missing program."""
    units = ["./asyncexport.service", "./asyncexport.timer"]
    verify = ["systemd-analyze", "verify", *units]
    assert main(["deploy", "systemd", "--into", "."]) == 0
    assert checked(verify) == (0, "", "")
    for name, old, new in (
        ("asyncexport.service", "SuccessExitStatus=", "SuccesExitStatus="),
        ("asyncexport.service", "ExecStart=", "ExecStart=/nowhere"),
        ("asyncexport.service", "RestartPreventExitStatus=2", "RestartPreventExitStatus=two"),
        ("asyncexport.timer", "03:10:00", "33:10:00"),
    ):
        assert main(["deploy", "systemd", "--into", ".", "--force"]) == 0
        break_file(folder / name, old, new)
        assert checked(verify)[2], new


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("name", ["plain", "a b", "p$x", "p'x", 'p"x', "p\\x", "p%x", "$", "end\\"])
def test_systemd_accepts_odd_paths(tmp_path, name):
    """`systemd-analyze verify` says nothing, wherever the program and the working directory are."""
    program = tmp_path / name / "program"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    deployment = replace(DEPLOYMENT, program=(str(program),), working_directory=program.parent, user="root")
    for file in systemd_files(deployment):
        (tmp_path / file.name).write_text(file.text)
    verify = ["systemd-analyze", "verify", str(tmp_path / "asyncexport.service")]
    assert checked(verify) == (0, "", "")


def test_kubernetes_accepts_the_cron_job(folder):
    """`kubernetes-validate --strict` finds nothing, and finds an unknown key, a wrong type and a missing field."""
    pytest.importorskip("kubernetes_validate", reason="needs pip install '.[deploy]'")
    validate = [str(Path(sys.executable).with_name("kubernetes-validate")), "--strict", "-k"]
    for version in SCHEMAS:
        for name in ("with-file", "without-file"):
            assert main(["deploy", "kubernetes", "--into", ".", "--name", name]) == 0
            code, output, errors = checked([*validate, version, f"{name}.yaml"])
            assert (code, errors) == (0, ""), output + errors
            Path("asyncexport.toml").unlink(missing_ok=True)
        Path("asyncexport.toml").write_text(EXAMPLE)
        for path in folder.glob("*.yaml"):
            path.unlink()
    for old, new in (
        ("concurrencyPolicy:", "concurencyPolicy:"),
        ("backoffLimit: 4", "backoffLimit: four"),
        ('  schedule: "10 3 * * *"\n', ""),
    ):
        assert main(["deploy", "kubernetes", "--into", ".", "--force"]) == 0
        break_file(folder / "asyncexport.yaml", old, new)
        assert checked([*validate, SCHEMAS[0], "asyncexport.yaml"])[0] != 0, new


@pytest.mark.skipif(not AIRFLOW, reason="AIRFLOW_PYTHON names no Python that has Airflow 3")
@pytest.mark.parametrize("options", [(), ("--start", "2026-01-01")])
def test_airflow_loads_the_dag(folder, options):
    """Airflow loads it without a warning; the exit code decides about retries; a broken twin is found."""
    load = [AIRFLOW, "-W", "error::DeprecationWarning:__main__", "-c", LOAD]
    home = {"AIRFLOW_HOME": str(folder.parent / "airflow"), "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
    dag = folder / "asyncexport_dag.py"
    assert main(["deploy", "airflow", "--into", ".", *options]) == 0
    code, output, errors = checked([*load, str(dag)], **home)
    assert (code, errors) == (0, ""), errors
    *log, last = output.splitlines()
    assert log[-3:] == ["begun", "saved", "the task was stopped"]
    found = json.loads(last)
    assert (found["errors"], found["dags"]) == ([], ["asyncexport"])
    assert found["codes"] == {
        "0": "success",
        "2": "AirflowFailException",
        "3": "AirflowFailException",
        "5": "AirflowException",
        "9": "AirflowException",
    }
    break_file(dag, "max_active_runs=1", "max_activ_runs=1")
    found = json.loads(checked([*load, str(dag)], **home)[1].splitlines()[-1])
    assert found["errors"]
    assert found["dags"] == []
