"""``airflow-ai choose``: by flags, without a terminal, and in a real (pseudo-)terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.choosing import choose
from airflow_provider_ai.core.needs import QUESTIONS, Needs
from airflow_provider_ai.core.skeletons import skeleton

PROGRAM = "from airflow_provider_ai.cli import program; program()"
# Where Ctrl-C reaches the program, even if tests run in the background of a shell, which has them ignore it.
IN_TERMINAL = (
    "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
)
COMMAND = [sys.executable, "-c", PROGRAM, "choose"]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TIMEOUT_SECONDS = 60.0

TRIAGE = ["--latency-seconds", "3", "--volume", "1", "--freshness", "60s", "--effect", "read", "--phi"]
NEEDS = Needs(latency_seconds=3, volume=1, freshness_seconds=60, effect="read", phi=True)
CTRL_C, CTRL_D = "\x03", "\x04"


def _without_terminal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class Terminal:
    """The program in a pseudo-terminal: what it shows there, and its redirected stdout."""

    def __init__(self, process: subprocess.Popen[str], master: int) -> None:
        self.process = process
        self.shown = ""
        self._master = master

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until the terminal has shown a text so many times."""
        until = time.monotonic() + TIMEOUT_SECONDS
        while self.shown.count(text) < times:
            ready, _, _ = select.select([self._master], [], [], max(0, until - time.monotonic()))
            assert ready, f"{text!r} was not shown in {TIMEOUT_SECONDS:g} s, but {self.shown!r}"
            self.shown += os.read(self._master, 65_536).decode()

    def type(self, text: str) -> None:
        """Keys, as a person presses them."""
        os.write(self._master, text.encode())

    def end(self) -> tuple[int, str]:
        """The exit code, and what was written to stdout."""
        stdout, _ = self.process.communicate(timeout=TIMEOUT_SECONDS)
        while select.select([self._master], [], [], 0)[0]:
            try:
                self.shown += os.read(self._master, 65_536).decode()
            except OSError:  # Linux says EIO when the other end is closed and all is read
                break
        return self.process.returncode, stdout


@contextmanager
def _terminal(*arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    # A session of its own, so that Ctrl-C goes to the program and not to the tests.
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL + PROGRAM, "choose", *arguments],
        env=ENVIRONMENT,
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.communicate()
        os.close(master)


# --- flags


def test_flags_give_the_pattern_its_reasons_and_the_skeleton(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked when all is given."""
    assert main(["choose", *TRIAGE]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.startswith("Use: synchronous call (sync)\n")
    sections = ["Why", "What speaks against the others", "What to mind", "What would change that"]
    assert [title for title in sections if f"\n{title}\n  - " not in shown.out] == []
    assert "What does not fit" not in shown.out
    assert "batch run, if volume > 64 and freshness ≥ 1 h" in shown.out
    assert shown.out.endswith(f"\n\n{skeleton('sync', NEEDS)}")


def test_everything_that_was_said_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """For a case with conflicts: each reason, conflict and warning is somewhere, whatever the line breaks."""
    arguments = ["--latency-seconds", "1", "--volume", "1,000,000", "--freshness", "1", "--effect", "ehr-write"]
    assert main(["choose", *arguments, "--phi"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    needs = Needs(latency_seconds=1, volume=10**6, freshness_seconds=1, effect="ehr-write", phi=True)
    choice = choose(needs)
    assert choice.conflicts
    texts = [*(reason.text for reason in choice.reasons), *choice.conflicts, *choice.warnings]
    assert [text for text in texts if " ".join(text.split()) not in shown] == []


def test_json_is_one_object_as_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With all that the text has."""
    assert main(["choose", *TRIAGE, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == [
        "needs",
        "pattern",
        "rule",
        "reasons",
        "conflicts",
        "warnings",
        "changes",
        "skeleton",
    ]
    assert found["needs"] == {
        "latency_seconds": 3,
        "volume": 1,
        "freshness_seconds": 60,
        "effect": "read",
        "phi": True,
    }
    assert (found["pattern"], found["rule"], found["conflicts"]) == ("sync", "somebody-waits", [])
    assert found["changes"] == [
        {"pattern": "async", "conditions": ["latency > 5 s"]},
        {"pattern": "batch", "conditions": ["volume > 64", "freshness ≥ 1 h"]},
    ]
    assert found["skeleton"] == skeleton("sync", NEEDS)


def test_skeleton_only_is_a_dag_file(capsys: pytest.CaptureFixture[str]) -> None:
    """To be redirected into the DAGs folder."""
    assert main(["choose", *TRIAGE, "--skeleton-only"]) == 0
    assert capsys.readouterr().out == skeleton("sync", NEEDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latency-seconds", "soon"], "argument --latency-seconds: a time must be"),
        (["--volume", "1.5"], "argument --volume: a volume must be"),
        (["--freshness", "0"], "argument --freshness: a time must be"),
        (["--effect", "write"], "argument --effect: an effect must be read or ehr-write, got 'write'"),
        (["--json", "--skeleton-only"], "not allowed with argument"),
        (["--latency", "3", "extra"], "unrecognized arguments: extra"),
    ],
)
def test_a_wrong_flag_ends_with_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And says what it must be."""
    with pytest.raises(SystemExit) as caught:
        main(["choose", *arguments])
    shown = capsys.readouterr()
    assert (caught.value.code, shown.out) == (2, "")
    assert words in shown.err


def test_help_teaches_with_examples_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Each example with flags is run, and gives the pattern that the line above it names."""
    with pytest.raises(SystemExit) as caught:
        main(["choose", "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert [question.flag for question in QUESTIONS if question.flag not in shown] == []
    examples = [line.split() for line in shown.splitlines() if line.startswith("  airflow-ai choose --latency")]
    named = [line.rpartition(": ")[2] for line in shown.splitlines() if line.startswith("  # ") and ": " in line]
    patterns = {"synchronous": "sync", "batch": "batch", "asynchronous": "async"}
    assert len(examples) == len(patterns)
    for example, name in zip(examples, named, strict=True):
        assert main([*example[1:], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pattern"] == patterns[name]


def test_without_a_terminal_missing_flags_are_named() -> None:
    """A script that forgot one must not wait for a person."""
    done = _without_terminal(*TRIAGE[:4])
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: not given: --freshness, --effect, --phi or --no-phi\n" in done.stderr
    complete = _without_terminal(*TRIAGE[:-1], "--no-phi", "--json")
    assert (complete.returncode, complete.stderr) == (0, "")
    assert json.loads(complete.stdout)["needs"]["phi"] is False


def test_help_and_a_choice_import_nothing_heavy() -> None:
    """No Airflow, no client, no data library: they answer at once."""
    heavy = ["airflow", "pyarrow", "aiohttp", "duckdb", "sqlalchemy", "rich", "pandas", "pydantic", "orjson"]
    program = f"""
import sys
from airflow_provider_ai.cli import main
assert main(["choose", *{TRIAGE!r}, "--json"]) == 0
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=True,
    )
    assert done.stderr == "[]\n"


# --- in a terminal


def test_in_a_terminal_it_asks_what_no_flag_answers() -> None:
    """Each question once, in order; an empty line takes the default; stdout stays free for the result."""
    with _terminal("--volume", "1", "--json") as terminal:
        terminal.wait_for("[3]: ")
        terminal.type("10m\n")
        terminal.wait_for("[60]: ")
        terminal.type("1h\n")
        terminal.wait_for("[read]: ")
        terminal.type("ehr-write\n")
        terminal.wait_for("[yes]: ")
        terminal.type("\n")
        code, stdout = terminal.end()
    assert code == 0
    found = json.loads(stdout)
    assert (found["pattern"], found["needs"]) == (
        "async",
        {"latency_seconds": 600.0, "volume": 1, "freshness_seconds": 3600.0, "effect": "ehr-write", "phi": True},
    )
    asked = [terminal.shown.count(question.text) for question in QUESTIONS]
    assert asked == [1, 0, 1, 1, 1]  # the volume was given


def test_a_wrong_answer_is_explained_and_asked_for_again() -> None:
    """As often as it takes."""
    with _terminal(*TRIAGE[2:], "--json") as terminal:
        terminal.wait_for("[3]: ")
        terminal.type("soon\n")
        terminal.wait_for("[3]: ", times=2)
        terminal.type("-1\n")
        terminal.wait_for("[3]: ", times=3)
        terminal.type("2\n")
        code, stdout = terminal.end()
    assert (code, json.loads(stdout)["needs"]["latency_seconds"]) == (0, 2)
    assert "a time must be seconds or have a unit (500ms, 3s, 15m, 12h, 7d), got 'soon'" in terminal.shown


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_ctrl_c_and_ctrl_d_end_politely(key: str) -> None:
    """With 1, a sentence and no traceback."""
    with _terminal() as terminal:
        terminal.wait_for("[3]: ")
        terminal.type(key)
        code, stdout = terminal.end()
    assert (code, stdout) == (1, "")
    assert "ended before all questions were answered; nothing was chosen" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_in_a_terminal_nothing_is_asked_when_all_is_given() -> None:
    """Flags are enough there too."""
    with _terminal(*TRIAGE, "--skeleton-only") as terminal:
        code, stdout = terminal.end()
    assert (code, stdout, terminal.shown) == (0, skeleton("sync", NEEDS), "")
