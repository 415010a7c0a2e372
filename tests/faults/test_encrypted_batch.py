"""A batch with [encryption]: nothing of a record is in any checkpoint, whatever happens to the run or to the key."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.core.envelope_mark import is_envelope
from airflow_provider_ai.core.frames import scan_frames
from airflow_provider_ai.core.keyring import keyring_text, text_of
from tests.faults.conftest import MakeBatch
from tests.faults.support.batch import COMMAND, Batch
from tests.faults.support.dataset import SECRETS
from tests.faults.support.invariants import verify
from tests.support.keys import key, local_keys, new_kms_key
from tests.support.ministack import REGION, MiniStack
from tests.support.processes import child_environment

WORDS = (*SECRETS, "score", "visits-00.parquet")  # ids and inputs, outputs, and where they come from


def with_keys(*names: str) -> dict[str, Any]:
    """Settings of a batch whose keyring holds these keys, the first of them current."""
    return {
        "encryption": {"kind": "local", "keyring_env": "TEST_KEYRING", "tenant": "clinic-a"},
        "environment": {"TEST_KEYRING": keyring_text(local_keys(*names))},
    }


def in_clear(batch: Batch) -> list[str]:
    """Checkpoint files that hold, or may hold, something of a record in the clear."""
    found = [
        path.name
        for path in batch.files("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in WORDS) and path.name[:5] != "done-"
    ]
    segments = [path.name for path in batch.files("*.arrow") if not is_envelope(path.read_bytes())]
    frames = [path.name for path in batch.files("*.wal") if not all(map(is_envelope, frames_of(path)))]
    return found + segments + frames


def frames_of(path: Path) -> list[bytes]:
    return scan_frames(path.read_bytes()).payloads


def half_done(batch: Batch) -> Batch:
    """Killed with a sealed partition and a log of some size."""
    run = batch.start()
    run.until(lambda: bool(batch.files("done-000.json") and batch.files("*.wal")), "a seal and a log")
    run.until_records(batch.stub, batch.stub.progress()["answered"] + 30).kill()
    assert batch.files("*.arrow")
    assert sum(map(len, map(frames_of, batch.files("*.wal")))) > 10
    return batch


def test_killed_and_resumed_with_nothing_in_the_clear(make_batch: MakeBatch) -> None:
    """Costs what it costs without encryption; the table is the same but for its record keys."""
    batch = half_done(make_batch(latency_ms=40, **with_keys("first")))
    assert in_clear(batch) == []
    batch.run()
    assert in_clear(batch) == []
    verify(batch, repeated=batch.in_flight)
    assert batch.status()["plan"] == "complete"


def test_without_encryption_that_would_be_noticed(make_batch: MakeBatch) -> None:
    """The mutant of the test above."""
    batch = half_done(make_batch(latency_ms=40))
    kinds = {Path(name).suffix for name in in_clear(batch)}
    assert kinds >= {".wal", ".arrow", ".json"}


def test_quarantined_records_are_encrypted_too(make_batch: MakeBatch) -> None:
    batch = make_batch(rows=100, limits={"max_quarantined_fraction": 0.5}, **with_keys("first"))
    bad = batch.dataset.ids[::10]
    batch.stub.set_faults({"do": "status", "status": 400, "ids": [str(name) for name in bad]})
    batch.run()
    assert any(path.name.startswith("bad-") for path in batch.files("*.arrow"))
    assert in_clear(batch) == []
    verify(batch, quarantined=bad)


def test_record_keys_are_keyed(make_batch: MakeBatch) -> None:
    """Nobody who knows the ids of patients can tell which of them a record key is of."""
    plain, encrypted = make_batch(rows=20), make_batch(rows=20, **with_keys("first"))
    for batch in (plain, encrypted):
        batch.run()
    keys_of = [{row["visit_id"]: row["_record_key"] for row in batch.rows()} for batch in (plain, encrypted)]
    assert keys_of[0].keys() == keys_of[1].keys()
    assert set(keys_of[0].values()).isdisjoint(keys_of[1].values())


def test_moved_checkpoints_are_refused_by_name(make_batch: MakeBatch) -> None:
    """A log of one partition that is put into another is no answer to the records there. Nobody calls the model."""
    batch = half_done(make_batch(latency_ms=40, **with_keys("first")))
    log = batch.files("*.wal")[0]
    other = next(path for path in batch.files("done-000.json")).parent
    (other / "done-000.json").unlink()
    shutil.copy(log, other / "log-moved000-00000-0.wal")
    end = batch.run(code=1)
    assert "log-moved000-00000-0.wal: encrypted data belong to another record" in end.stderr
    assert "do what the message says" in end.stderr


def test_checkpoints_can_be_moved_as_a_whole(make_batch: MakeBatch) -> None:
    """To another folder, bucket or mount: they are bound to their plan, not to where it lies."""
    batch = half_done(make_batch(latency_ms=40, **with_keys("first")))
    before = batch.stub.progress()["answered"]
    batch.checkpoints.rename(batch.folder / "elsewhere")
    batch.checkpoint_uri = "elsewhere/"
    batch.run()
    assert batch.stub.progress()["answered"] - before <= batch.dataset.rows - before + batch.in_flight
    verify(batch, repeated=batch.in_flight)


@pytest.mark.parametrize("keys", [{}, with_keys("second")], ids=["no keys", "another key"])
def test_without_the_key_nothing_is_called_and_nothing_lost(make_batch: MakeBatch, keys: dict[str, Any]) -> None:
    batch = half_done(make_batch(latency_ms=40, **with_keys("first")))
    right, batch.encryption = batch.encryption, keys.get("encryption", {})
    keyring = batch.environment
    batch.environment = keys.get("environment", {})
    before = batch.stub.progress()["requests"]
    end = batch.run(code=1)
    assert ("add it there as an older key" if keys else "no keys are configured") in end.stderr
    assert batch.stub.progress()["requests"] == before
    batch.encryption, batch.environment = right, keyring
    batch.run()
    verify(batch, repeated=batch.in_flight)


# --- keys in KMS


def in_kms(server: MiniStack, key_id: str, **more: Any) -> dict[str, Any]:
    table = {"kind": "kms", "key_id": key_id, "region": REGION, "endpoint_url": server.url, "hash_key_env": "TEST_HASH"}
    return {
        "encryption": {**table, **more},
        "environment": {**server.environment(), "TEST_HASH": text_of(key("hash"))},
    }


def test_a_key_revoked_between_runs(make_batch: MakeBatch, ministack_server: MiniStack) -> None:
    """The run ends before it calls the model; once the key is back, it goes on with what was paid for."""
    key_id = new_kms_key(ministack_server)
    kms = ministack_server.client("kms")
    batch = half_done(make_batch(latency_ms=40, **in_kms(ministack_server, key_id)))
    assert in_clear(batch) == []
    before = batch.stub.progress()["requests"]
    kms.disable_key(KeyId=key_id)
    end = batch.run(code=1)
    assert f"KMS key '{key_id}' is disabled" in end.stderr
    assert "finished records are not called again" in end.stderr
    assert batch.stub.progress()["requests"] == before
    kms.enable_key(KeyId=key_id)
    batch.run()
    verify(batch, repeated=batch.in_flight)


def test_a_key_revoked_under_way(make_batch: MakeBatch, ministack_server: MiniStack) -> None:
    """The run stops within the life of a data key, and keeps what was answered until then: none is paid for twice."""
    key_id = new_kms_key(ministack_server)
    kms = ministack_server.client("kms")
    keys = in_kms(ministack_server, key_id, data_key_seconds=8)
    batch = make_batch(rows=4000, latency_ms=100, **keys)
    run = batch.start().until_records(batch.stub, 100)
    kms.disable_key(KeyId=key_id)
    end = run.expect(1)
    assert "is disabled" in end.stderr
    assert batch.stub.progress()["answered"] < 4000
    kms.enable_key(KeyId=key_id)
    batch.run()
    verify(batch)


# --- rotation


def rotate(batch: Batch) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(COMMAND), "keys", "rotate", str(batch.write_spec())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(batch.environment),
    )


def ended(process: subprocess.Popen[bytes], code: int = 0) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def test_rotation_is_killed_again_and_again(make_batch: MakeBatch, seed: int) -> None:
    """At any moment every file is readable; in the end all are under the new key, and the old one is needed no more."""
    chosen = random.Random(seed)
    batch = half_done(make_batch(latency_ms=40, **with_keys("first")))
    names = {path.name for path in batch.files("*.arrow")}
    batch.environment = with_keys("second", "first")["environment"]
    for _ in range(6):
        process = rotate(batch)
        time.sleep(chosen.uniform(0.2, 1.5))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)
        assert in_clear(batch) == []
    first, second = rotate(batch), rotate(batch)  # and two at once
    assert {ended(first)["refused"], ended(second)["refused"]} == {0}
    again = ended(rotate(batch))
    assert (again["rewrapped"], again["current"], list(again["keys"])) == (0, again["seen"], ["second"])
    assert {path.name for path in batch.files("*.arrow")} == names
    batch.environment = with_keys("second")["environment"]
    batch.run()
    verify(batch, repeated=batch.in_flight)


def test_rotation_leaves_a_running_partition_alone(make_batch: MakeBatch) -> None:
    """And says so. When the runner is gone, the partition follows, with all that was answered."""
    batch = make_batch(latency_ms=1500, partitions=1, **with_keys("first"))
    run = batch.start().until_records(batch.stub, 20)
    batch.environment = with_keys("second", "first")["environment"]
    report = ended(rotate(batch), code=3)
    assert (report["busy"], report["refused"]) == (1, 0)
    run.kill()
    assert ended(rotate(batch))["rewrapped"] == 1
    batch.environment = with_keys("second")["environment"]
    (partition,) = batch.status()["partitions"]
    assert partition["succeeded"] >= batch.stub.progress()["answered"] - batch.in_flight


def test_publications_survive_a_rotation(make_batch: MakeBatch) -> None:
    """A finished batch is not published again: its segments have the same names."""
    batch = make_batch(rows=100, **with_keys("first"))
    batch.run()
    rows = batch.rows()
    batch.environment = with_keys("second", "first")["environment"]
    assert ended(rotate(batch))["rewrapped"] > 4
    batch.environment = with_keys("second")["environment"]
    report = batch.run().report
    assert report is not None
    assert (report["requests"], batch.rows()) == (0, rows)


def test_no_key_is_in_any_output(make_batch: MakeBatch) -> None:
    """Of the runs above, by way of one that fails for want of a key."""
    batch = make_batch(rows=40, **with_keys("first"))
    batch.run("--log-level", "debug")
    batch.environment = with_keys("second")["environment"]
    batch.run("--log-level", "debug", code=1)
    text = "".join(run.output for run in batch.runs)
    for name in ("first", "second", "hash"):
        assert text_of(key(name)) not in text
        assert repr(key(name))[2:-1] not in text
    assert os.environ.get("TEST_KEYRING") is None
