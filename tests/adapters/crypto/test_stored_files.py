"""Files with data keys wrapped anew: which of them are looked at, what becomes of logs, and what is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.adapters.checkpoints.partition_files import PartitionFiles
from airflow_provider_ai.adapters.checkpoints.plans import open_storage
from airflow_provider_ai.adapters.crypto import stored_files
from airflow_provider_ai.adapters.crypto.local_keys import LocalKeyWrapper
from airflow_provider_ai.adapters.crypto.rewrapping import Rewrapper
from airflow_provider_ai.adapters.crypto.stored_files import StoredFile, StoredFiles
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.frames import encode_frame, scan_frames
from airflow_provider_ai.exceptions import CiphertextError, UnknownKeyError
from airflow_provider_ai.runtime.key_rotation import KeyRotation, StoredPlaces
from tests.adapters.checkpoints.partitions import good, opened, scores
from tests.support.keys import local_codec, local_keys
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY, MiniStack

PLACE = {"what": "checkpoint", "partition": "p", "name": "log"}


def rewrapper(*names: str) -> Rewrapper:
    return Rewrapper(LocalKeyWrapper(local_keys(*names)), "default")


def log_of(*codecs: str, clear: int = 0) -> bytes:
    """A log with a record under each of these keys, and some in the clear."""
    frames = [local_codec(name).encode(name.encode(), context=PLACE) for name in codecs] + [b"{}"] * clear
    return b"".join(map(encode_frame, frames))


def test_a_message_keeps_all_but_its_key() -> None:
    """It is readable with the new key alone; the data key went to the key service once."""
    old, wrapper = local_codec("old"), rewrapper("new", "old")
    messages = [old.encode(bytes([n]), context=PLACE) for n in range(3)]
    after = [wrapper.message(data) for data in messages]
    assert [local_codec("new").decode(data, context=PLACE) for data in after] == [b"\0", b"\1", b"\2"]
    assert len({data[:100] for data in after}) == 1
    assert [wrapper.message(data) for data in after] == after
    assert wrapper.message(b"{}") == b"{}"


def test_what_is_not_ours_is_refused() -> None:
    stored = local_codec("old").encode(b"x", context=PLACE)
    with pytest.raises(UnknownKeyError):
        rewrapper("new").message(stored)
    with pytest.raises(CiphertextError):
        rewrapper("new", "old").message(stored[:60])


def test_a_log_is_wrapped_anew_frame_by_frame() -> None:
    """Whatever keys they are under; a torn frame at its end stays, for it may be somebody's who is about to go on."""
    before = log_of("old", "new", "old", clear=1)
    torn = before + before[:30]
    after = rewrapper("new", "old").log(torn)
    assert after.endswith(before[:30])
    payloads = scan_frames(after).payloads
    assert [local_codec("new").decode(data, context=PLACE) for data in payloads[:3]] == [b"old", b"new", b"old"]
    assert payloads[3] == b"{}"


def test_looking_asks_no_key_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it may be done by whoever may not decrypt; nothing is changed."""

    def forbidden(*_: object) -> None:
        raise AssertionError("a key service was asked")

    (tmp_path / "log-a-0.wal").write_bytes(before := log_of("new", "old"))
    (tmp_path / "one").write_bytes(local_codec("old").encode(b"x", context=PLACE))
    for name in ("wrap_anew", "unwrap", "make"):
        monkeypatch.setattr(LocalKeyWrapper, name, forbidden)
    report = KeyRotation(StoredPlaces(folders=(str(tmp_path),)), local_keys("new", "old"), write=False).run()
    assert (report.rewrapped, report.keys) == (2, {"new": 1, "old": 1})
    assert (tmp_path / "log-a-0.wal").read_bytes() == before


def test_only_files_that_may_hold_data_are_looked_at(tmp_path: Path) -> None:
    names = [
        "plans/run.json", "key/manifest.json", "key/pass.json", "key/e000/p0/lock", "key/e000/p0/done-000.json",
        "key/e000/p0/good-a-0-b.arrow", "key/e000/p0/log-a-0.wal", "key/e000/p0/x.arrow.1.tmp",
        "key/e000/p0/claims/c", "payload/job-1", "a/b/output.json",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [f"{file.folder.removeprefix(str(tmp_path))}/{file.name}" for file in StoredFiles(str(tmp_path))]
    assert found == [
        "/a/b/output.json",
        "/key/e000/p0/good-a-0-b.arrow",
        "/key/e000/p0/log-a-0.wal",
        "/key/manifest.json",
        "/payload/job-1",
    ]


def test_a_log_is_replaced_under_its_lock_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a runner has the partition, its log is not touched."""
    monkeypatch.setattr(stored_files, "_PATIENCE_SECONDS", 0.6)
    monkeypatch.setattr(stored_files, "_LOOK_SECONDS", 0.05)
    (tmp_path / "p").mkdir()
    log = tmp_path / "p" / "log-a-0.wal"
    log.write_bytes(before := log_of("old"))
    files, file = StoredFiles(str(tmp_path)), StoredFile(str(tmp_path / "p"), log.name)
    holder = open_storage(str(tmp_path / "p")).try_lock("a runner")
    assert holder is not None
    assert files.rewrap_locked(file, rewrapper("new", "old")) is None
    assert log.read_bytes() == before
    holder.release()
    assert files.rewrap_locked(file, rewrapper("new", "old")) is True
    assert log.read_bytes() != before
    log.unlink()
    assert files.rewrap_locked(file, rewrapper("new", "old")) is False


def test_a_damaged_log_is_left_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(log_of("old", "old"))
    data[20] ^= 1
    (tmp_path / "log-a-0.wal").write_bytes(b"AIF1" + bytes(data[4:]))
    report = KeyRotation(StoredPlaces(folders=(str(tmp_path),)), local_keys("new", "old"), write=True).run()
    assert (report.refused, report.seen) == (1, 1)
    assert "something is left as it is" in caplog.text


def test_checkpoints_on_s3_are_wrapped_anew(ministack_server: MiniStack, bucket: str) -> None:
    """Segments keep their names, so that their seal still holds; the new key is enough."""
    options = StorageOptions(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_url=ministack_server.url
    )
    storage = open_storage(f"s3://{bucket}/key/e000/p00000", options)
    checkpoint = opened(storage, codec=local_codec("old"))
    for row in range(12):
        checkpoint.record(good(row))
    sealed = checkpoint.complete()
    checkpoint.close()
    names = storage.names()
    places = StoredPlaces(folders=(f"s3://{bucket}/",), storage=options)
    report = KeyRotation(places, local_keys("new", "old"), write=True).run()
    assert (report.rewrapped, report.keys) == (1, {"old": 1})
    assert storage.names() == names
    assert scores(storage, sealed, codec=local_codec("new")) == [(row, row / 10) for row in range(12)]
    assert KeyRotation(places, local_keys("new"), write=True).run().current == 1
    assert PartitionFiles(storage, local_codec("new"), where="w").finished(0) == sealed
