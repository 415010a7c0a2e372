"""``airflow-ai jobs``: what it prints where, and how it ends. The store is SQLite, the queue is in memory."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.cli import main
from airflow_provider_ai.core.jobs import JobState, Outcome, job_id, submission_key
from airflow_provider_ai.core.messages import decode_request
from airflow_provider_ai.runtime.request_reply import JobClient
from airflow_provider_ai.testing import InMemoryClaimChecks, InMemoryQueue

SPEC = """\
[transport]
kind = "sqs"
endpoint_url = "http://127.0.0.1:1"
region = "us-east-1"
request_queue = "requests"
result_queue = "results"
dead_letter_queue = "dead"
[store]
url = "sqlite:///store.db"
"""
Shown = pytest.CaptureFixture[str]
SUBMISSION = submission_key("jobs", "K")


@dataclass
class Jobs:
    """Runs commands in a folder with a spec, against one deployment."""

    folder: Path
    queue: InMemoryQueue = field(default_factory=InMemoryQueue)
    contents: InlineOrClaimCheck = field(default_factory=lambda: InlineOrClaimCheck(InMemoryClaimChecks()))
    opened: list[dict[str, Any]] = field(default_factory=list)

    def client(self, **settings: Any) -> JobClient:
        self.opened.append(settings)
        store = open_store(settings["store"], timeout_seconds=15)
        return JobClient(store=store.jobs(), queue=self.queue, contents=self.contents, close=[store.close])

    def run(self, command: str, *arguments: str, key: str = "K") -> int:
        spec = str(self.folder / "jobs.toml")
        return main(["jobs", command, spec, "--key", key, *arguments], runtime=self.client)

    def submit(self, text: str, *arguments: str, key: str = "K") -> int:
        file = self.folder / "in.jsonl"
        file.write_text(text)
        return self.run("submit", "--input", str(file), *arguments, key=key)

    def wait(self, *arguments: str, timeout: str = "0", key: str = "K") -> int:
        return self.run("wait", "--no-dispatcher", "--timeout", timeout, *arguments, key=key)

    def finish(self, *outputs: Any) -> None:
        """End jobs from the first on: with an output, or (a JobState) without."""
        store = open_store(f"sqlite:///{self.folder}/store.db")
        for job, output in zip(store.jobs().jobs(SUBMISSION), outputs, strict=False):
            store.jobs().receive(job.job_id, self._outcome(job.job_id, output), via="test")
        store.close()

    def _outcome(self, name: str, output: Any) -> Outcome:
        if isinstance(output, JobState):
            return Outcome(state=output, reason=f"was_{output.value}")
        content = self.contents.pack(json.dumps(output).encode(), kind="result", job_id=name)
        return Outcome(state=JobState.SUCCEEDED, content=content)

    def payloads(self) -> list[Any]:
        messages = [decode_request(delivery.body) for delivery in self.queue.peek(most=1000)]
        return [json.loads(message.payload.inline or b"") for message in messages]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    (tmp_path / "jobs.toml").write_text(SPEC)
    return Jobs(tmp_path)


def counts(jobs: int, **others: int) -> dict[str, int]:
    return {"jobs": jobs, "completed": 0, "failed": 0, "expired": 0, "pending": 0} | others


def last_line(shown: Shown) -> Any:
    return json.loads(shown.readouterr().out.splitlines()[-1])


# --- submit


def test_each_line_is_a_job(jobs: Jobs, capsys: Shown) -> None:
    """Its id is printed in its place, the counts come last; people are told what a sensor in Airflow waits for."""
    assert jobs.submit('{"n": 1}\n\n[{"n": 2}]\n{"n": 3}') == 0
    shown = capsys.readouterr()
    *ids, last = shown.out.splitlines()
    assert f"submission {SUBMISSION}: 3 jobs, 3 messages sent" in shown.err
    assert ids == [job_id(SUBMISSION, position) for position in range(3)]
    assert json.loads(last) == counts(3, pending=3)
    assert sorted(map(str, jobs.payloads())) == ["[{'n': 2}]", "{'n': 1}", "{'n': 3}"]
    assert jobs.opened[0]["store"] == f"sqlite:///{jobs.folder}/store.db"


def test_a_second_call_re_attaches(jobs: Jobs, capsys: Shown) -> None:
    """The same ids, and no second message; another key is other jobs."""
    jobs.submit('{"n": 1}\n')
    first = capsys.readouterr().out
    assert jobs.submit('{ "n" : 1 }') == 0
    assert capsys.readouterr().out == first
    assert len(jobs.payloads()) == 1
    assert jobs.submit('{"n": 1}\n', key="another") == 0
    assert len(jobs.payloads()) == 2


def test_quiet_prints_the_counts_alone(jobs: Jobs, capsys: Shown) -> None:
    """And nothing on stderr."""
    assert jobs.submit('{"n": 1}\n', "--quiet") == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == counts(1, pending=1)
    assert shown.err == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"n": 1}\n{"n": secret\n{"n": 3}\n', "in.jsonl: not valid JSON in UTF-8 (line 2, column "),
        ('{"n": 1}\n\n\n"\udcff"\n', "(line 4, column"),
        ('{"n": NaN}\n', "(line 1, column"),
        ("\n \n", "in.jsonl: there is no request in it"),
        ("", "there is no request in it"),
    ],
)
def test_a_bad_file_is_found_before_anything_is_submitted(jobs: Jobs, capsys: Shown, text: str, words: str) -> None:
    """By its line, which is not quoted."""
    (jobs.folder / "in.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert jobs.run("submit", "--input", str(jobs.folder / "in.jsonl")) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "secret" not in shown.err
    assert shown.out == ""
    assert jobs.payloads() == []
    assert jobs.opened == []


def piped(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Standard input is a pipe with this in it."""
    reader, writer = os.pipe()
    os.write(writer, text)
    os.close(writer)
    monkeypatch.setattr("sys.stdin", os.fdopen(reader))


def test_requests_may_come_by_standard_input(jobs: Jobs, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are checked before anything is submitted, and re-attach, as those of a file do."""
    for _ in range(2):
        piped(monkeypatch, b'{"n": 1}\n\n{"n": 2}')
        assert jobs.run("submit", "--input", "-", "--quiet") == 0
        assert last_line(capsys) == counts(2, pending=2)
    assert sorted(map(str, jobs.payloads())) == ["{'n': 1}", "{'n': 2}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"n": 1}\n{"n": secret}', "standard input: not valid JSON in UTF-8 (line 2, column"),
        (b"", "standard input: there is no request in it"),
    ],
)
def test_bad_standard_input(
    jobs: Jobs, capsys: Shown, monkeypatch: pytest.MonkeyPatch, text: bytes, words: str
) -> None:
    """Exit code 2, by its line, and nothing is submitted."""
    piped(monkeypatch, text)
    assert jobs.run("submit", "--input", "-") == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "secret" not in shown.err
    assert jobs.payloads() == []


def test_requests_may_come_by_a_named_pipe(jobs: Jobs, capsys: Shown) -> None:
    """As a shell's <(…) gives it: it can be read once only."""
    pipe = jobs.folder / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_text, args=('{"n": 1}\n{"n": 2}\n',))
    writing.start()
    assert jobs.run("submit", "--input", str(pipe)) == 0
    writing.join()
    assert last_line(capsys) == counts(2, pending=2)


def test_a_file_that_is_not_there(jobs: Jobs, capsys: Shown) -> None:
    """It is named."""
    assert jobs.run("submit", "--input", str(jobs.folder / "absent.jsonl")) == 2
    assert "absent.jsonl: cannot be read (No such file or directory)" in capsys.readouterr().err


def test_a_changed_line_is_an_error(jobs: Jobs, capsys: Shown) -> None:
    """And so is one that is gone; what was submitted stays."""
    jobs.submit('{"n": 1}\n{"n": 2}\n')
    assert jobs.submit('{"n": 1}\n{"n": "secret"}\n') == 2
    shown = capsys.readouterr().err
    assert "request 1 of the submission (they count from 0) was submitted before with another payload" in shown
    assert "another KEY" in shown
    assert "secret" not in shown
    assert jobs.submit('{"n": 1}\n') == 2
    assert "more jobs than the 1 requests" in capsys.readouterr().err
    assert len(jobs.payloads()) == 2


def test_a_deadline_and_a_tenant_are_on_every_job(jobs: Jobs) -> None:
    """Jobs that were not begun by then expire."""
    assert jobs.submit('{"n": 1}\n', "--deadline", "60", "--group", "ward-3") == 0
    [delivery] = jobs.queue.peek(most=10)
    message = decode_request(delivery.body)
    assert message.expires_at is not None
    assert 0 < message.expires_at - message.time <= 60


# --- wait


def test_replies_are_lines_in_the_order_of_the_requests(jobs: Jobs, capsys: Shown) -> None:
    """All of them succeeded: exit 0."""
    jobs.submit('{"n": 1}\n{"n": 2}\n', "--quiet")
    jobs.finish({"x": "é"}, [1, 2])
    output = jobs.folder / "out.jsonl"
    assert jobs.wait("--output", str(output)) == 0
    assert last_line(capsys) == counts(2, completed=2)
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"position": 0, "job_id": job_id(SUBMISSION, 0), "status": "succeeded", "output": {"x": "é"}},
        {"position": 1, "job_id": job_id(SUBMISSION, 1), "status": "succeeded", "output": [1, 2]},
    ]


def test_a_wait_lasts_until_the_last_reply(jobs: Jobs, capsys: Shown) -> None:
    """Also when another has failed long before: its reason is in the file, too."""
    jobs.submit('{"n": 1}\n{"n": 2}\n', "--quiet")
    jobs.finish(JobState.FAILED)
    threading.Timer(0.7, jobs.finish, (None, {"x": 1})).start()
    output = jobs.folder / "out.jsonl"
    assert jobs.wait("--output", str(output), timeout="30") == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1]) == counts(2, completed=1, failed=1)
    assert "1 of 2 jobs ended without a result (1 failed)" in shown.err
    first, second = map(json.loads, output.read_text().splitlines())
    assert (first["status"], first["reason"], second["status"]) == ("failed", "was_failed", "succeeded")


@pytest.mark.parametrize(("fraction", "code"), [("0.24", 3), ("0.25", 0), ("1", 0)])
def test_some_failures_may_be_allowed(jobs: Jobs, fraction: str, code: int) -> None:
    """As a fraction of all jobs."""
    jobs.submit('{"n": 1}\n' * 4, "--quiet")
    jobs.finish(1, 2, 3, JobState.EXPIRED)
    assert jobs.wait("--max-failed-fraction", fraction) == code


def test_a_timeout_leaves_the_file_as_it_was(jobs: Jobs, capsys: Shown) -> None:
    """And says that waiting again helps."""
    jobs.submit('{"n": 1}\n{"n": 2}\n', "--quiet")
    jobs.finish({"x": 1})
    output = jobs.folder / "out.jsonl"
    output.write_text("old")
    assert jobs.wait("--output", str(output), timeout="0.5") == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1]) == counts(2, completed=1, pending=1)
    assert "a retry waits for the same jobs" in shown.err
    assert output.read_text() == "old"


def test_cancelled_jobs_are_counted_when_there_are_any(jobs: Jobs, capsys: Shown) -> None:
    """So that the counts add up."""
    jobs.submit('{"n": 1}\n{"n": 2}\n', "--quiet")
    jobs.finish({"x": 1})
    assert jobs.run("cancel") == 0
    assert last_line(capsys) == counts(2, completed=1, cancelled=1)
    assert jobs.wait() == 3
    assert jobs.run("cancel") == 0


@pytest.mark.parametrize("command", ["wait", "status", "cancel"])
def test_a_key_that_nobody_submitted(jobs: Jobs, capsys: Shown, command: str) -> None:
    """Is an error at once, and not a wait."""
    run: Callable[[], int] = jobs.wait if command == "wait" else lambda: jobs.run(command)
    assert run() == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1]) == counts(0)
    assert "never submitted" in shown.err or "nothing was submitted" in shown.err


def test_an_output_that_cannot_be_written_is_found_before_waiting(jobs: Jobs, capsys: Shown) -> None:
    """Hours later would be too late."""
    jobs.submit('{"n": 1}\n', "--quiet")
    assert jobs.wait("--output", str(jobs.folder / "absent" / "out.jsonl"), timeout="3600") == 2
    assert "must be a file in a folder that is there" in capsys.readouterr().err


# --- status, and arguments


def test_status_shows_counts_and_reasons(jobs: Jobs, capsys: Shown) -> None:
    """The most frequent first, the counts last."""
    jobs.submit('{"n": 1}\n' * 5, "--quiet")
    jobs.finish(JobState.EXPIRED, JobState.FAILED, JobState.FAILED, {"x": 1})
    capsys.readouterr()
    assert jobs.run("status", "--reasons") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"reason": "was_failed", "jobs": 2},
        {"reason": "was_expired", "jobs": 1},
        counts(5, completed=1, failed=2, expired=1, pending=1),
    ]
    assert jobs.run("status") == 0
    assert last_line(capsys)["pending"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["wait"],
        ["wait", "--timeout", "-1"],
        ["wait", "--timeout", "inf"],
        ["wait", "--timeout", "1", "--max-failed-fraction", "2"],
        ["submit"],
    ],
)
def test_arguments_that_cannot_be_right(jobs: Jobs, arguments: list[str]) -> None:
    """Nothing is opened."""
    command, *rest = arguments
    with pytest.raises(SystemExit) as ended:
        jobs.run(command, *rest)
    assert ended.value.code == 2
    assert jobs.opened == []


def test_a_spec_that_cannot_be_right(jobs: Jobs, capsys: Shown) -> None:
    """It names the table and the key."""
    (jobs.folder / "jobs.toml").write_text(SPEC.replace('kind = "sqs"', 'kind = "rabbit"'))
    assert jobs.submit('{"n": 1}\n') == 2
    assert "[transport] kind must be one of" in capsys.readouterr().err
