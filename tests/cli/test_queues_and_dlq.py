"""``airflow-ai queues`` and ``airflow-ai dlq``: what they print where, how they end, and no payload among it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.cli import main
from airflow_provider_ai.cli.connections import transport_of
from airflow_provider_ai.cli.job_spec import JobSpec, load_job_spec
from airflow_provider_ai.core.job_messages import request_message
from airflow_provider_ai.core.jobs import Content, NewJob, job_id, submission_key
from airflow_provider_ai.patterns.dead_letters import dead_letter
from tests.patterns.test_dead_letter_desk import Office
from tests.support.ministack import MiniStack

Shown = pytest.CaptureFixture[str]
CANARY = "CANARY-PATIENT-4711"


def write_spec(folder: Path, *, url: str = "http://127.0.0.1:1", more: str = "") -> Path:
    tag = uuid4().hex[:10]
    spec = folder / "jobs.toml"
    spec.write_text(f"""
[transport]
kind = "sqs"
endpoint_url = "{url}"
region = "us-east-1"
request_queue = "requests-{tag}"
result_queue = "results-{tag}"
dead_letter_queue = "dead-{tag}"
call_timeout_seconds = 3
{more}
[store]
url = "sqlite:///store.db"
[worker]
visibility_timeout_seconds = 45
""")
    return spec


def lines(shown: Shown) -> list[Any]:
    return [json.loads(line) for line in shown.readouterr().out.splitlines()]


# --- queues


@pytest.fixture
def real_spec(tmp_path: Path, ministack_server: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ministack_server.environment().items():
        monkeypatch.setenv(name, value)
    return write_spec(tmp_path, url=ministack_server.url)


def test_queues_are_created_and_then_there(real_spec: Path, ministack_server: MiniStack, capsys: Shown) -> None:
    """The visibility timeout is the worker's; a difference is told and ends with a code of its own."""
    assert main(["queues", "create", str(real_spec)]) == 0
    (made,) = lines(capsys)
    assert [queue["state"] for queue in made["queues"]] == ["created"] * 3
    assert main(["queues", "create", str(real_spec)]) == 0
    assert [queue["state"] for queue in lines(capsys)[0]["queues"]] == ["exists"] * 3
    client = ministack_server.client("sqs")
    name = load_job_spec(real_spec).transport.request_queue
    client.set_queue_attributes(
        QueueUrl=client.get_queue_url(QueueName=name)["QueueUrl"], Attributes={"VisibilityTimeout": "9"}
    )
    assert main(["queues", "create", str(real_spec)]) == 3
    said = capsys.readouterr()
    assert f"{name}: VisibilityTimeout is 9, and should be 45" in said.err
    states = {queue["name"]: queue["state"] for queue in json.loads(said.out)["queues"]}
    assert states[name] == "differs"


@pytest.mark.parametrize(("template", "text"), [("terraform", "aws_sqs_queue"), ("cloudformation", "AWS::SQS::Queue")])
def test_a_template_is_printed_and_nothing_is_asked_of_anyone(
    tmp_path: Path, capsys: Shown, template: str, text: str
) -> None:
    """There is no service at that address."""
    assert main(["queues", "create", str(write_spec(tmp_path)), "--print", template]) == 0
    assert text in capsys.readouterr().out


@pytest.fixture
def airflow_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Airflow of its own, without a database."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_home")
def test_the_queues_of_an_airflow_connection(capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of Airflow in another process, the keys of its AWS connection included."""
    names = {f"{kind}_queue": f"{kind.replace('_', '-')}-of-conn" for kind in ("request", "result", "dead_letter")}
    extra = {**names, "claim_check_uri": "/lake/claims", "aws_conn_id": "lake"}
    connection = {"conn_type": "ai_jobs", "host": "http://127.0.0.1:1", "extra": extra}
    keys = {"conn_type": "aws", "login": "AKIA", "password": "secret", "extra": {"region_name": "eu-west-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_JOBS_HERE", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(keys))
    assert main(["queues", "create", "--conn", "jobs_here", "--print", "cloudformation"]) == 0
    assert {f'"QueueName": "{name}"' for name in names.values()} <= {
        line.strip().rstrip(",") for line in capsys.readouterr().out.splitlines()
    }
    found = transport_of("jobs_here")
    assert (found.region, found.access_key, found.secret_key) == ("eu-west-1", "AKIA", "secret")


@pytest.mark.airflow
@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("connection", "words"),
    [
        (None, "isn't defined"),
        ({"conn_type": "ai_jobs"}, "connection 'jobs_here' (type ai_jobs): request_queue is missing"),
    ],
)
def test_a_connection_that_cannot_be_used(
    connection: dict[str, Any] | None, words: str, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and what is wrong with it."""
    if connection is not None:
        monkeypatch.setenv("AIRFLOW_CONN_JOBS_HERE", json.dumps(connection))
    assert main(["queues", "create", "--conn", "jobs_here"]) == 2
    assert words in capsys.readouterr().err


def test_where_there_is_no_airflow(capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to do instead."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert main(["queues", "create", "--conn", "jobs_here"]) == 2
    assert "give a SPEC.toml" in capsys.readouterr().err


def test_a_service_that_is_down_ends_with_a_code_and_advice(tmp_path: Path, capsys: Shown, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert main(["queues", "create", str(write_spec(tmp_path))]) == 1
    assert "SQS does not answer" in capsys.readouterr().err


def test_a_queue_less_patient_than_the_worker_is_refused(tmp_path: Path, capsys: Shown) -> None:
    """Before anything is made."""
    assert main(["queues", "create", str(write_spec(tmp_path, more="max_receives = 3"))]) == 2
    assert "[transport] max_receives must be more than max_attempts (5), got 3" in capsys.readouterr().err


# --- dead letters


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def run(office: Office, tmp_path: Path) -> Any:
    """``run("list", …)`` carries out a command of ``dlq`` on the office's desk."""
    spec = str(write_spec(tmp_path))

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        yield office.people

    return lambda command, *arguments: main(["dlq", command, spec, *arguments], runtime=opened)


def test_a_list_shows_reasons_and_ids_of_store_and_queue(office: Office, run: Any, capsys: Shown) -> None:
    """And ends with the counts; --most shortens the list and not the counts."""
    jobs = office.submit(3)
    office.bury(jobs[0], "timeout")
    office.bury(jobs[1], "timeout")
    office.people.take_all()
    office.bury(jobs[2], "server_error")
    assert run("list") == 0
    *letters, counts = lines(capsys)
    assert {(each["job_id"], each["reason"], each["place"]) for each in letters} == {
        (jobs[0].job_id, "timeout", "store"),
        (jobs[1].job_id, "timeout", "store"),
        (jobs[2].job_id, "server_error", "queue"),
    }
    assert counts == {"letters": 2, "queued": 1, "reasons": {"timeout": 2, "server_error": 1}}
    assert run("list", "--most", "1", "--reason", "timeout") == 0
    *letters, counts = lines(capsys)
    assert (len(letters), counts["letters"]) == (1, 2)


def test_a_letter_is_shown_with_its_job(office: Office, run: Any, capsys: Shown) -> None:
    """By its own id or the job's."""
    (job,) = office.bury_all(1, "timeout")
    office.people.take_all()
    assert run("show", job.job_id) == 0
    (letter,) = lines(capsys)
    assert letter["job"]["state"] == "failed"
    assert letter["bytes"] > 0
    assert run("show", letter["letter_id"]) == 0
    assert run("show", "nothing") == 1
    assert "no such dead letter" in capsys.readouterr().err


def test_a_redrive_takes_what_is_in_the_queue_too(office: Office, run: Any, capsys: Shown) -> None:
    """Nobody has to wait for a dispatcher."""
    office.bury_all(3)
    assert run("redrive", "--all") == 0
    assert lines(capsys) == [{"letters": 3, "jobs": 3, "sent": 3, "skipped": 0}]
    assert run("redrive", "--all") == 0
    assert lines(capsys) == [{"letters": 0, "jobs": 0, "sent": 0, "skipped": 0}]


@pytest.mark.parametrize("arguments", [[], ["--all", "--id", "x"], ["--reason", "r", "--all"]])
@pytest.mark.parametrize("command", ["redrive", "purge"])
def test_what_is_meant_must_be_said(run: Any, capsys: Shown, command: str, arguments: list[str]) -> None:
    """One way, and not by leaving everything out."""
    with pytest.raises(SystemExit, match="2"):
        run(command, *arguments)
    assert "--all" in capsys.readouterr().err


def test_a_purge_asks(office: Office, run: Any, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is told not to; where nobody can answer it does nothing."""
    office.bury_all(2)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run("purge", "--all") == 2
    assert "say --yes" in capsys.readouterr().err

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Person("no\n"))
    assert run("purge", "--all") == 0
    said = capsys.readouterr()
    assert "throw 2 dead letters away? [y/N]" in said.err
    assert json.loads(said.out) == {"purged": 0}
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    assert run("purge", "--all") == 0
    assert lines(capsys) == [{"purged": 2}]
    office.bury_all(2)
    assert run("purge", "--all", "--yes") == 0


def _bury(spec: JobSpec, number: int) -> list[str]:
    """Submit jobs, and make dead letters of their requests, without a worker."""
    store, transport = open_store(spec.store), open_transport(spec.transport)
    submission = submission_key("test", uuid4().hex)
    ids = [job_id(submission, position) for position in range(number)]
    content = Content(sha256="0" * 64, inline=json.dumps({"note": CANARY}).encode())
    jobs = store.jobs().submit(
        [NewJob(job_id=each, submission=submission, position=n, payload=content) for n, each in enumerate(ids)]
    )
    transport.requests.send([request_message(job, now=1.0) for job in jobs])
    store.jobs().sent(ids)
    left = number
    while left:
        for delivery in transport.requests.receive(most=10, wait_seconds=2, visibility_seconds=60):
            name = json.loads(delivery.body)["id"]
            dead_letter(transport.requests, transport.dead_letters, delivery, "server_error", name)
            left -= 1
    transport.close()
    store.close()
    return ids


def test_dead_letters_of_a_real_queue_and_store(real_spec: Path, capsys: Shown) -> None:
    """From the queue to the store to new jobs; what is printed, and logged, holds no payload."""
    assert main(["queues", "create", str(real_spec)]) == 0
    ids = _bury(load_job_spec(real_spec), 12)
    capsys.readouterr()
    everything = ""
    assert main(["dlq", "list", str(real_spec), "--log-level", "debug"]) == 0
    said = capsys.readouterr()
    everything += said.out + said.err
    *letters, counts = map(json.loads, said.out.splitlines())
    assert {letter["job_id"] for letter in letters} == set(ids)
    assert (counts["queued"], counts["reasons"]) == (12, {"server_error": 12})
    for arguments in (["redrive", str(real_spec), "--id", ids[0]], ["redrive", str(real_spec), "--all"]):
        assert main(["dlq", *arguments, "--log-level", "debug"]) == 0
    said = capsys.readouterr()
    everything += said.out + said.err
    first, rest = map(json.loads, said.out.splitlines())
    assert (first["sent"], rest["sent"]) == (1, 11)
    assert CANARY not in everything
    spec = load_job_spec(real_spec)
    transport = open_transport(spec.transport)
    assert (transport.requests.depth(), transport.dead_letters.depth()) == (12, 0)
    transport.close()
