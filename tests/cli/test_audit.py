"""``airflow-ai audit`` on a real store: what it finds after somebody was there, what it exports, and how it ends."""

from __future__ import annotations

import io
import json
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.audit.head_places import open_head_place
from airflow_provider_ai.adapters.audit.opening import open_audit_log
from airflow_provider_ai.adapters.audit.signing import HeadSigner, new_key_pair
from airflow_provider_ai.cli import main
from airflow_provider_ai.cli.audit_spec import audit_settings
from airflow_provider_ai.cli.spec_parts import read_toml
from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome, digest_of, packed_keys
from airflow_provider_ai.core.audit_chain import Head
from airflow_provider_ai.core.identity import record_key

Shown = pytest.CaptureFixture[str]
SECRET = "a key of thirty-two bytes or more"
ACTOR = Actor(kind="airflow", role="submitter", user="u", dag_id="d", task_id="t", run_id="run-1", try_number=1)
CANARY = "CANARY-4711"
SPEC = """
[store]
url = "sqlite:///store.db"
[audit]
heads = "heads"
hmac_key_env = "AUDIT_HMAC_KEY"
signing_key_file = "audit.pem"
public_key_files = ["audit.pub.pem"]
purpose = "TREAT"
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Shown) -> Path:
    """A spec with an audit, and its keys."""
    monkeypatch.setenv("AUDIT_HMAC_KEY", SECRET)
    path = tmp_path / "jobs.toml"
    path.write_text(SPEC)
    assert main(["audit", "keygen", "--private", f"{tmp_path}/audit.pem", "--public", f"{tmp_path}/audit.pub.pem"]) == 0
    capsys.readouterr()
    return path


def write(spec: Path, events: int = 9, *, chains: int = 1) -> None:
    """Chains of ten events: one that opens it, and ``events`` about a record each."""
    folder = spec.parent
    document = read_toml(spec)
    settings = audit_settings(document["audit"], folder, os.environ, store=f"sqlite:///{folder}/store.db")
    for _ in range(chains):
        log = open_audit_log(settings, ACTOR)
        log.append([made(number) for number in range(events)])
        log.close()


def made(number: int, **facts: Any) -> AuditEvent:
    keys = packed_keys([record_key(f"{CANARY}-{number}", secret=SECRET.encode())])
    given = {
        "action": AuditAction.INFER,
        "outcome": AuditOutcome.SUCCEEDED,
        "actor": ACTOR,
        "at_us": 1_790_000_000_000_000 + number * 1_000_000,
        "keys": keys,
        "records": 1,
        "digest": digest_of(keys),
        "purpose": "TREAT",
        "model": "triage-7",
        "prompt_hash": "0123456789abcdef",
        "reference": f"r{number}",
    }
    return AuditEvent(**{**given, **facts})


def change(spec: Path, *statements: str) -> None:
    with sqlite3.connect(spec.parent / "store.db") as connection:
        for statement in statements:
            connection.execute(statement)


def verify(spec: Path, capsys: Shown, *more: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, findings, and the last line."""
    capsys.readouterr()
    code = main(["audit", "verify", str(spec), *more])
    *found, last = map(json.loads, capsys.readouterr().out.splitlines())
    return code, found, last


def writers(spec: Path) -> list[str]:
    with sqlite3.connect(spec.parent / "store.db") as connection:
        found = connection.execute("SELECT DISTINCT writer FROM ai_audit_events ORDER BY writer").fetchall()
    return [writer for (writer,) in found]


def test_an_untouched_audit_is_whole(spec: Path, capsys: Shown) -> None:
    """Exit code 0, and the counts in the last line."""
    write(spec, chains=3)
    code, found, last = verify(spec, capsys)
    assert (code, found) == (0, [])
    assert last["whole"] is True
    assert (last["events"], last["chains"], last["heads"], last["unsealed"]) == (30, 3, 3, 0)
    assert verify(spec, capsys, "--every-head")[2]["heads"] == 6


TAMPERING: dict[str, tuple[str, list[tuple[str, int]]]] = {
    "edited": ("UPDATE ai_audit_events SET at_us = at_us + 1 WHERE sequence = {n}", [("edited", 0)]),
    "edited user": (
        (
            "UPDATE ai_audit_events SET facts = CAST(replace(CAST(facts AS TEXT), '\"u\"', '\"v\"') AS BLOB) "
            "WHERE sequence = {n}"
        ),
        [("edited", 0)],
    ),
    "edited key": ("UPDATE ai_audit_events SET keys = zeroblob(16) WHERE sequence = {n}", [("keys_edited", 0)]),
    "removed key": ("UPDATE ai_audit_events SET keys = NULL WHERE sequence = {n}", [("keys_edited", 0)]),
    "edited hash": (
        "UPDATE ai_audit_events SET hash = zeroblob(32) WHERE sequence = {n}",
        [("edited", 0), ("edited", 1)],
    ),
    "deleted": ("DELETE FROM ai_audit_events WHERE sequence = {n}", [("missing", 0)]),
    "truncated": ("DELETE FROM ai_audit_events WHERE sequence >= {n}", [("truncated", 0)]),
    "removed": ("DELETE FROM ai_audit_events", [("removed_chain", None)]),  # type: ignore[list-item]
    "replayed": (
        (
            "INSERT INTO ai_audit_events SELECT writer, 11, at_us, records, digest, facts, keys, hash "
            "FROM ai_audit_events WHERE sequence = {n}"
        ),
        [("edited", None), ("after_close", None)],  # type: ignore[list-item]
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_tampering_is_found_and_located(how: str, spec: Path, capsys: Shown, seed: int) -> None:
    """Exit code 3; what, in which chain, and where."""
    write(spec)
    writer = writers(spec)[0]
    number = random.Random(seed).randrange(3, 9)
    statement, expected = TAMPERING[how]
    change(spec, statement.format(n=number))
    code, found, last = verify(spec, capsys)
    assert code == 3
    fixed = {"removed": [1], "replayed": [11, 11]}.get(how)
    places = fixed or [number + offset for _, offset in expected]
    assert [(each["finding"], each["sequence"]) for each in found] == [
        (kind, place) for (kind, _), place in zip(expected, places, strict=True)
    ]
    assert {each["writer"] for each in found} == {writer}
    assert last["whole"] is False
    assert sum(last["findings"].values()) == len(found)


def test_one_of_several_chains_is_removed(spec: Path, capsys: Shown, seed: int) -> None:
    """It is named. The one after it named it as well, with the hash of its end."""
    write(spec, chains=4)
    victim = random.Random(seed).choice(writers(spec))
    change(spec, f"DELETE FROM ai_audit_events WHERE writer = '{victim}'")
    code, found, _ = verify(spec, capsys)
    assert code == 3
    assert {each["writer"] for each in found} == {victim}
    assert {"removed_chain"} <= {each["finding"] for each in found} <= {"removed_chain", "removed_predecessor"}


def test_a_chain_that_was_made_up(spec: Path, capsys: Shown) -> None:
    """Its hashes fit; nobody has signed for it."""
    write(spec, chains=2)
    one = writers(spec)[0]
    for file in (spec.parent / "heads" / one).iterdir():
        file.unlink()
    code, found, _ = verify(spec, capsys)
    assert (code, [(each["finding"], each["writer"]) for each in found]) == (3, [("unknown_chain", one)])


@pytest.mark.parametrize("how", ["another key", "another chain", "no signature", "garbage"])
def test_a_forged_head(how: str, spec: Path, capsys: Shown) -> None:
    """It is named, and the genuine ones count all the same."""
    write(spec)
    writer = writers(spec)[0]
    change(spec, "DELETE FROM ai_audit_events WHERE sequence > 5")
    with sqlite3.connect(spec.parent / "store.db") as connection:
        (last,) = connection.execute("SELECT hash FROM ai_audit_events WHERE sequence = 5").fetchone()
    head = Head(writer=writer, sequence=5, hash=last, at_us=0, closed=True)
    signer = HeadSigner(new_key_pair()[0] if how == "another key" else (spec.parent / "audit.pem").read_text())
    data = signer.sign(head).to_json()
    if how == "another chain":
        data = signer.sign(Head(writer=writer[:-1] + "z", sequence=5, hash=last, at_us=0)).to_json()
    elif how == "no signature":
        data = data.replace(b'"signature":"', b'"signature":"00')
    elif how == "garbage":
        data = b"{"
    open_head_place(f"{spec.parent}/heads").put(head.name, data)
    code, found, _ = verify(spec, capsys)
    assert code == 3
    assert [(each["finding"], each["sequence"]) for each in found] == [("forged_head", 5), ("truncated", 6)]


def test_without_heads_a_truncated_chain_looks_whole(spec: Path, capsys: Shown) -> None:
    """And that is said: chains alone do not show it."""
    write(spec)
    change(spec, "DELETE FROM ai_audit_events WHERE sequence > 5")
    url = f"sqlite:///{spec.parent}/store.db"
    assert main(["audit", "verify", "--store", url]) == 0
    shown = capsys.readouterr()
    assert "cannot be told without them" in shown.err
    assert json.loads(shown.out)["whole"] is True


def test_copies_of_heads_in_the_store(spec: Path, capsys: Shown) -> None:
    """They show a truncated chain to whoever holds the public key, as long as they are not deleted as well."""
    write(spec)
    url, public = f"sqlite:///{spec.parent}/store.db", f"{spec.parent}/audit.pub.pem"
    change(spec, "DELETE FROM ai_audit_events WHERE sequence > 5")
    assert main(["audit", "verify", "--store", url, "--public-key", public]) == 3
    assert json.loads(capsys.readouterr().out.splitlines()[0])["finding"] == "truncated"


def test_heads_without_a_public_key_are_an_error(spec: Path, capsys: Shown) -> None:
    """Exit code 2: it would prove nothing."""
    url = f"sqlite:///{spec.parent}/store.db"
    assert main(["audit", "verify", "--store", url, "--heads", f"{spec.parent}/heads"]) == 2
    assert "name the public key" in capsys.readouterr().err


def test_only_chains_of_some_time(spec: Path, capsys: Shown) -> None:
    """By when they were begun."""
    write(spec, chains=2)
    assert verify(spec, capsys, "--since", "2100-01-01")[2]["events"] == 0
    assert verify(spec, capsys, "--until", "2020-01-01T00:00:00Z")[2]["events"] == 0
    assert verify(spec, capsys, "--since", "2020-01-01", "--until", "2100-01-01")[2]["events"] == 20
    assert main(["audit", "verify", str(spec), "--since", "yesterday"]) == 2


def test_a_store_that_is_not_there(spec: Path, capsys: Shown) -> None:
    """Exit code 1 or nothing found: never a clean bill for an audit that could not be read."""
    spec.write_text(SPEC.replace("sqlite:///store.db", "postgresql://nobody@127.0.0.1:1/none"))
    (spec.parent / "heads").mkdir()
    assert main(["audit", "verify", str(spec)]) == 1
    assert capsys.readouterr().out == ""


def test_a_store_that_was_never_made(spec: Path, capsys: Shown) -> None:
    """A misspelled file is no audit that is whole, and is not made."""
    (spec.parent / "heads").mkdir()
    assert main(["audit", "verify", str(spec)]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert not (spec.parent / "store.db").exists()


# --- export


def export(spec: Path, capsys: Shown, form: str, *more: str) -> list[dict[str, Any]]:
    assert main(["audit", "export", str(spec), "--format", form, *more]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_export_as_it_is(spec: Path, capsys: Shown) -> None:
    """With everything that the hash is over."""
    write(spec, 3)
    first, *rest = export(spec, capsys, "jsonl")
    assert (first["action"], first["sequence"]) == ("chain_opened", 1)
    assert [each["reference"] for each in rest] == ["r0", "r1", "r2"]
    assert rest[0]["at"] == "2026-09-21T14:13:20.000000Z"
    assert rest[0]["record_keys"] == [record_key(f"{CANARY}-0", secret=SECRET.encode())]
    assert rest[0]["actor"] == ACTOR.facts()


def test_export_by_time_and_run(spec: Path, capsys: Shown) -> None:
    """The beginning counts, the end does not."""
    write(spec, 5)
    some = ("--since", "2026-09-21T14:13:21Z", "--until", "2026-09-21T14:13:23Z")
    assert [each["reference"] for each in export(spec, capsys, "jsonl", *some)] == ["r1", "r2"]
    assert len(export(spec, capsys, "jsonl", "--run", "run-1")) == 6
    assert export(spec, capsys, "jsonl", "--run", "run-2") == []


def test_export_about_a_record(spec: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its key, which is told from its id on stdin; events that name its digest only are among them."""
    write(spec, 3)
    document = read_toml(spec)
    log = open_audit_log(
        audit_settings(document["audit"], spec.parent, os.environ, store=f"sqlite:///{spec.parent}/store.db"), ACTOR
    )
    log.append(
        [made(1, reference="again"), made(1, keys=b"", reference="by digest"), made(2, keys=b"", reference="no")]
    )
    log.close()
    monkeypatch.setattr("sys.stdin", io.StringIO(f'"{CANARY}-1"\n'))
    assert main(["audit", "key", str(spec)]) == 0
    key = capsys.readouterr().out.strip()
    found = {each["reference"] for each in export(spec, capsys, "jsonl", "--record-key", key)}
    assert found - {"r1"} == {"again", "by digest"}
    assert main(["audit", "export", str(spec), "--format", "jsonl", "--record-key", "x"]) == 2


@pytest.mark.parametrize("form", ["jsonl", "ocsf", "fhir-auditevent"])
def test_no_record_id_is_in_any_export(form: str, spec: Path, capsys: Shown) -> None:
    """Nor in the store itself, nor in the heads."""
    write(spec)
    assert main(["audit", "export", str(spec), "--format", form]) == 0
    assert CANARY not in capsys.readouterr().out
    files = [spec.parent / "store.db", spec.parent / "store.db-wal", *(spec.parent / "heads").rglob("*.json")]
    assert not any(CANARY.encode() in file.read_bytes() for file in files if file.exists())


# --- keys


def test_keys_are_new_and_their_owners(tmp_path: Path, capsys: Shown) -> None:
    """No key is ever overwritten."""
    private, public = tmp_path / "a.pem", tmp_path / "a.pub.pem"
    arguments = ["audit", "keygen", "--private", str(private), "--public", str(public)]
    assert main(arguments) == 0
    key_id = json.loads(capsys.readouterr().out)["key_id"]
    assert HeadSigner(private.read_text()).key_id == key_id
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes()
    assert main(arguments) == 2
    assert private.read_bytes() == before


def test_record_keys(spec: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number and its text are different records."""
    monkeypatch.setattr("sys.stdin", io.StringIO('42\n"42"\n'))
    assert main(["audit", "key", str(spec)]) == 0
    assert capsys.readouterr().out.split() == [
        record_key(42, secret=SECRET.encode()),
        record_key("42", secret=SECRET.encode()),
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("patient-17\n"))
    assert main(["audit", "key", str(spec)]) == 2
    assert "patient-17" not in capsys.readouterr().err


# --- the table in a spec

WRONG: dict[str, tuple[str, str]] = {
    "no hmac key": ("hmac_key_env = ", "hmac_key_envv = "),
    "an unset variable": ('"AUDIT_HMAC_KEY"', '"NOT_SET_ANYWHERE"'),
    "no signing key": ('signing_key_file = "audit.pem"', ""),
    "a key that is none": ('"audit.pem"', '"jobs.toml"'),
    "a policy nobody knows": ("purpose", 'on_audit_failure = "shrug"\npurpose'),
    "a purpose that is a sentence": ('"TREAT"', '"to treat"'),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_tables_that_cannot_be_right(wrong: str, spec: Path) -> None:
    """Refused before anything is opened, and never with a key in the message."""
    spec.write_text(SPEC.replace(*WRONG[wrong]))
    with pytest.raises(Exception, match=r"audit|key|purpose") as caught:
        write(spec)
    assert SECRET not in str(caught.value)


def test_a_table_may_say_off(spec: Path) -> None:
    """As if it were not there."""
    table = {**read_toml(spec)["audit"], "on": False}
    assert audit_settings(table, spec.parent, os.environ, store=None) is None
    assert audit_settings({}, spec.parent, os.environ, store=None) is None


def test_a_short_key_is_refused(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids could be guessed."""
    monkeypatch.setenv("AUDIT_HMAC_KEY", "short")
    with pytest.raises(Exception, match="hmac_key must have 32 to 64 bytes, got '5'"):
        write(spec)
