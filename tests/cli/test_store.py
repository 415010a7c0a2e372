"""``airflow-ai store``: what it prints where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.store import open_store, schema
from airflow_provider_ai.adapters.store.tables import REVISIONS
from airflow_provider_ai.cli import main
from airflow_provider_ai.core.call_ports import Evidence
from airflow_provider_ai.core.call_settings import BreakerSettings, CallSettings
from airflow_provider_ai.core.job_ports import DeadLetter
from airflow_provider_ai.core.jobs import Content, JobState, NewJob, Outcome, job_id
from tests.support.processes import free_port

Shown = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


def set_revision(url: str, revision: str) -> None:
    store = open_store(url)
    store.upgrade()
    with store.database.transaction(30) as connection:
        connection.execute(sa.update(REVISIONS).values(version_num=revision))


def test_upgrade_makes_a_store_and_then_leaves_it(url: str, file: Path, capsys: Shown) -> None:
    """It says what it did, on stdout."""
    assert main(["store", "upgrade", "--store", url]) == 0
    assert capsys.readouterr().out == f"SQLite store {file}: upgraded from nothing to {schema.HEAD}\n"
    assert main(["store", "upgrade", "--store", url]) == 0
    assert capsys.readouterr().out == f"SQLite store {file}: was at revision {schema.HEAD} already\n"


def test_a_spec_names_the_store(tmp_path: Path, file: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to its own folder; the rest of it is not looked at."""
    spec = tmp_path / "triage.toml"
    spec.write_text('[call]\nnonsense = 1\n[store]\nurl = "sqlite:///store.db"\n')
    monkeypatch.chdir("/")
    assert main(["store", "upgrade", str(spec)]) == 0
    assert file.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no [store] with a url"),
        ("store = 1", "there is no [store] with a url"),
        ("[store]\nurl = 1", "there is no [store] with a url"),
        ("[store", "must be valid TOML"),
        (None, "there is no such file"),
    ],
)
def test_a_spec_without_a_store(text: str | None, words: str, tmp_path: Path, capsys: Shown) -> None:
    """Exit code 2, and what is missing."""
    spec = tmp_path / "triage.toml"
    if text is not None:
        spec.write_text(text)
    assert main(["store", "status", str(spec)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["spec.toml", "--store", "sqlite:///x.db"]])
def test_exactly_one_place_must_be_named(arguments: list[str], capsys: Shown) -> None:
    """Neither none nor two."""
    with pytest.raises(SystemExit) as caught:
        main(["store", "upgrade", *arguments])
    assert caught.value.code == 2


def test_status_of_no_store_makes_none(url: str, file: Path, capsys: Shown) -> None:
    """Exit code 1."""
    assert main(["store", "status", "--store", url]) == 1
    assert "tables: none yet" in capsys.readouterr().out
    assert not file.exists()


def test_status_shows_breakers_and_calls_under_way(url: str, capsys: Shown) -> None:
    """As text, and as one JSON object."""
    store = open_store(url)
    gate = store.gate(CallSettings(max_concurrent_calls=5, breaker=BreakerSettings(minimum_calls=1)))
    gate.settle(gate.admit("models:443/a-01234567"), Evidence.FAILING)
    gate.admit("models:443/b-89abcdef")
    store.answers().save("key", {"secret": 1}, model="m")
    assert main(["store", "status", "--store", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "good answers: 1" in lines
    assert [line.split() for line in lines[-2:]] == [
        ["open", "0", "of", "5", "models:443/a-01234567"],
        ["closed", "1", "of", "5", "models:443/b-89abcdef"],
    ]
    assert main(["store", "status", "--store", url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in shown["endpoints"]] == ["open", "closed"]
    assert shown["good_answers"] == 1


def test_status_shows_jobs_and_what_was_put_aside(url: str, capsys: Shown) -> None:
    """Numbers and reasons: no id, no payload."""
    store = open_store(url)
    jobs = store.jobs()
    content = Content(sha256="0" * 64, inline=b"{}")
    ids = [job_id("s", position) for position in range(4)]
    jobs.submit([NewJob(job_id=name, submission="s", position=n, payload=content) for n, name in enumerate(ids)])
    jobs.receive(ids[0], Outcome(state=JobState.SUCCEEDED, content=content), via="queue")
    jobs.fail(ids[1], reason="rejected")
    jobs.claim(ids[2], sha256=content.sha256, owner="w", lease_seconds=30, max_attempts=5)
    letters = [
        DeadLetter(letter_id=f"{n}" * 32, job_id=None, reason=reason, source="q", message=b"canary")
        for n, reason in enumerate(["rejected", "not_json", "not_json"])
    ]
    store.dead_letters().keep(letters)
    jobs.keep_unknown(b"canary", job_id=None, via="webhook", reason="unsigned")
    assert main(["store", "status", "--store", url]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[2:] == [
        "good answers: 0",
        "jobs: 1 pending, 1 running, 1 succeeded, 1 failed",
        "inbox: 1 outcomes have arrived, 1 are under way",
        "dead letters: 2 not_json, 1 rejected",
        "unknown replies and refused webhooks: 1 unsigned",
    ]
    assert main(["store", "status", "--store", url, "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["jobs"] == {
        "states": {"pending": 1, "running": 1, "succeeded": 1, "failed": 1},
        "arrived": 1,
        "under_way": 1,
        "dead_letters": {"not_json": 2, "rejected": 1},
        "unknown_replies": {"unsigned": 1},
    }
    assert not [word for word in ("canary", *ids) if word in text + shown]


@pytest.mark.parametrize("revision", ["0001", "9999"])
def test_status_of_tables_that_are_not_this_versions(revision: str, url: str, capsys: Shown) -> None:
    """Exit code 1, and both revisions."""
    set_revision(url, revision)
    assert main(["store", "status", "--store", url]) == 1
    assert f"tables: revision {revision}; this version needs {schema.HEAD}" in capsys.readouterr().out


def test_upgrade_of_newer_tables_fails(url: str, capsys: Shown) -> None:
    """Exit code 1; the package is too old."""
    set_revision(url, "9999")
    assert main(["store", "upgrade", "--store", url]) == 1
    assert "install the version of airflow-provider-ai that upgraded the store" in capsys.readouterr().err


def test_a_database_that_is_down(capsys: Shown) -> None:
    """Exit code 1; no password in what is said."""
    assert main(["store", "status", "--store", f"postgresql://u:s3cret@127.0.0.1:{free_port()}/x"]) == 1
    shown = capsys.readouterr()
    assert "connection refused" in shown.err
    assert "s3cret" not in shown.out + shown.err


def test_a_url_that_cannot_be_used(capsys: Shown) -> None:
    """Exit code 2."""
    assert main(["store", "upgrade", "--store", "mysql://u:s3cret@db/x"]) == 2
    assert "s3cret" not in capsys.readouterr().err
