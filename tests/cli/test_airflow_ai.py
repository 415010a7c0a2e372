"""``airflow-ai``: what it prints where, how it ends, and what it does not import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai import __version__
from airflow_provider_ai.cli import main
from airflow_provider_ai.core.config import Limits, StorageOptions
from tests.cli.fake_runtime import REPORT, UNTOLD, FakeRuntime
from tests.cli.specs import MINIMAL, changed, write

COUNTS = {"records": 100, "succeeded": 97, "quarantined": 3, "requests": 120, "reused": 0, "published": 97}
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT_SECONDS = 60


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )


def _fake(ending: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return _python("-m", "tests.cli.fake_runtime", ending, *map(str, arguments))


def _last_json(stdout: str) -> Any:
    return json.loads(stdout.splitlines()[-1])


# --- arguments


def test_help_teaches_with_a_spec_that_is_accepted(tmp_path: Path) -> None:
    done = _python("-m", "tests.cli.fake_runtime", "complete", "--help")
    assert done.returncode == 0
    example = done.stdout.partition("nightly.toml`\n")[2].partition("Paths are relative")[0]
    path = write(tmp_path, "\n".join(line.strip() for line in example.splitlines()))
    assert _fake("complete", "batch", "run", path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["batch", "run", "--help"], ["--retry-failed", "exit codes:", "0 2 * * *  airflow-ai batch run"]),
        (["batch", "status", "--help"], ["--json", "airflow-ai batch status nightly.toml --json"]),
        (["batch", "--help"], ["run", "status", "[input]"]),
        (["--version"], [f"airflow-ai {__version__}"]),
    ],
)
def test_each_command_explains_itself(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert [word for word in words if word not in shown] == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["batch"],
        ["batch", "run"],
        ["batch", "run", "x.toml", "--resume", "--recompute"],
        ["batch", "run", "x.toml", "--nope"],
        ["batch", "run", "x.toml", "--log-level", "loud"],
        ["sync"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments, runtime=FakeRuntime())
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "verb"),
    [([], "resume"), (["--resume"], "resume"), (["--retry-failed"], "retry_failed"), (["--recompute"], "recompute")],
)
def test_the_verb_is_handed_on(tmp_path: Path, options: list[str], verb: str) -> None:
    runtime = FakeRuntime()
    assert main(["batch", "run", str(write(tmp_path)), *options], runtime=runtime) == 0
    assert runtime.verbs == [verb]


def test_the_job_is_made_of_the_spec(tmp_path: Path) -> None:
    runtime = FakeRuntime()
    text = changed("concurrency = 7", table="limits")
    text = changed('region = "eu-west-1"', table="storage", text=text)
    assert main(["batch", "run", str(write(tmp_path, text))], runtime=runtime) == 0
    (job,) = runtime.jobs
    assert job["limits"] == Limits(concurrency=7)
    assert job["storage"] == StorageOptions(region="eu-west-1")
    assert job.keys() == {"input", "endpoint", "request", "limits", "checkpoint", "sink", "storage", "keys"}


# --- endings


def test_a_complete_run_prints_the_counts_as_its_last_line_and_progress_to_stderr(tmp_path: Path) -> None:
    done = _fake("complete", "batch", "run", write(tmp_path))
    assert done.returncode == 0
    assert _last_json(done.stdout) == {**COUNTS, "seconds": 1.235}
    assert list(_last_json(done.stdout)) == [*COUNTS, "seconds"]
    assert len(done.stdout.splitlines()) == 1
    assert "infer: 100 of 100 (100%), 3 quarantined, 81 records/s" in done.stderr


@pytest.mark.parametrize(
    ("ending", "code", "words"),
    [
        ("input", 1, ["error: two rows of visits.parquet share an id", "correct the input"]),
        ("endpoint", 1, ["error: the endpoint stayed down for 300 s", "run the same command again to resume"]),
        ("sink", 1, ["error: the warehouse is down", "without calling the model"]),
        ("threshold", 3, ["error: 3 of 100 records failed, 1 is allowed", "--retry-failed"]),
    ],
)
def test_a_failed_run_says_what_to_do_and_still_prints_the_counts(
    tmp_path: Path, ending: str, code: int, words: list[str]
) -> None:
    done = _fake(ending, "batch", "run", write(tmp_path))
    assert done.returncode == code
    assert [word for word in words if word not in done.stderr] == []
    assert _last_json(done.stdout).items() >= COUNTS.items()


def test_a_bad_spec_ends_with_2_and_prints_no_counts(tmp_path: Path) -> None:
    path = write(tmp_path, changed("concurency = 1", table="limits"))
    done = _fake("complete", "batch", "run", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: {path}: unknown key 'concurency' in [limits]; did you mean 'concurrency'?" in done.stderr
    found_later = _fake("spec", "batch", "run", write(tmp_path))
    assert (found_later.returncode, found_later.stdout) == (2, "")


def test_what_was_not_foreseen_shows_its_class_only_unless_debugging(tmp_path: Path) -> None:
    done = _fake("crash", "batch", "run", write(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: unexpected KeyError\n" in done.stderr
    assert UNTOLD not in done.stderr
    assert "Traceback" not in done.stderr
    debugged = _fake("crash", "batch", "run", write(tmp_path), "--log-level", "debug")
    assert debugged.returncode == 1
    assert f"KeyError: '{UNTOLD}'" in debugged.stderr


def test_quiet_prints_the_counts_and_nothing_else(tmp_path: Path) -> None:
    done = _fake("complete", "batch", "run", write(tmp_path), "--quiet")
    assert done.stderr == ""
    assert _last_json(done.stdout).items() >= COUNTS.items()


def test_a_key_the_protocol_does_not_use_is_warned_about(tmp_path: Path) -> None:
    done = _fake("complete", "batch", "run", write(tmp_path, changed('prompt = "{{ record.x }}"')), "--quiet")
    assert done.returncode == 0
    assert "WARNING 'prompt' in [endpoint] is not used by protocol 'json'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_run_which_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.cli.fake_runtime", "wait", "batch", "run", str(write(tmp_path)), "--quiet"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "waiting\n"
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 1
    assert f"error: stopped by {number.name}\n" in stderr
    assert "run the same command again to resume" in stderr
    assert _last_json(stdout).items() >= COUNTS.items()


def test_signal_handlers_are_left_as_they_were_found(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert main(["batch", "run", str(write(tmp_path))], runtime=FakeRuntime()) == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


# --- status


def test_status_shows_partitions_reasons_and_what_a_resume_would_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", "status", str(write(tmp_path))], runtime=FakeRuntime()) == 0
    assert capsys.readouterr().out.splitlines() == [
        "plan: unfinished, but the input has changed since",
        "records: 100; a resume would call 30",
        "",
        "        rows    succeeded  quarantined      pending  published  partition",
        "          60           57            3            0  yes        visits/00000",
        "          40           10            0           30  no         visits/00001",
        "",
        " quarantined  status  reason",
        "           2  400     rejected",
        "           1  -       unrenderable",
    ]


def test_status_as_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "status", str(write(tmp_path)), "--json"], runtime=FakeRuntime()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["plan"], shown["input_changed"]) == ("unfinished", True)
    assert (shown["records"], shown["would_call"], shown["warehouse"]) == (100, 30, None)
    assert [(part["label"], part["pending"], part["published"]) for part in shown["partitions"]] == [
        ("visits/00000", 0, True),
        ("visits/00001", 30, False),
    ]
    assert shown["quarantine"][0] == {"error_class": "rejected", "status": 400, "count": 2}


def test_status_needs_no_api_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEY_OF_NOBODY", raising=False)
    path = str(write(tmp_path, changed('api_key_env = "KEY_OF_NOBODY"')))
    assert main(["batch", "status", path], runtime=FakeRuntime()) == 0
    assert main(["batch", "run", path], runtime=FakeRuntime()) == 2


def test_status_that_fails_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["batch", "status", str(write(tmp_path))], runtime=FakeRuntime("input")) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()[0]) == ("", "error: two rows of visits.parquet share an id")


# --- imports


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [(["--help"], None), (["batch", "run"], MINIMAL + "nope = 1\n"), (["batch", "run"], "[input\n")],
)
def test_help_and_a_bad_spec_import_nothing_heavy(tmp_path: Path, arguments: list[str], spec: str | None) -> None:
    heavy = ["airflow", "pyarrow", "aiohttp", "duckdb", "sqlalchemy", "rich", "pandas", "pydantic", "jsonschema"]
    if spec is not None:
        arguments = [*arguments, str(write(tmp_path, spec))]
    program = f"""
import sys
from airflow_provider_ai.cli import main
try:
    code = main({arguments!r})
except SystemExit as stop:
    code = stop.code
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""
    done = _python("-c", program)
    assert done.stderr.splitlines()[-1] == "[]"
    assert done.returncode == (0 if spec is None else 2)


def test_the_program_loses_no_output(tmp_path: Path) -> None:
    """It leaves without the interpreter's farewell, which is what flushes a pipe otherwise."""
    path = str(write(tmp_path))
    program = f"""
import sys
from airflow_provider_ai import cli
from tests.cli.fake_runtime import FakeRuntime
sys.argv[1:] = ["batch", "status", {path!r}, "--json"]
whole = cli.main
cli.main = lambda: whole(runtime=FakeRuntime())
cli.program()
"""
    done = _python("-c", program)
    assert (done.returncode, len(_last_json(done.stdout)["partitions"])) == (0, 2)


def test_a_run_does_not_import_airflow(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["airflow"] = None  # importing it would fail
from airflow_provider_ai.cli import main
from airflow_provider_ai.runtime import batch_inference
from tests.cli.fake_runtime import FakeRuntime
sys.exit(main(["batch", "run", {str(write(tmp_path))!r}], runtime=FakeRuntime()))
"""
    done = _python("-c", program)
    assert (done.returncode, _last_json(done.stdout)["records"]) == (0, REPORT.records)
