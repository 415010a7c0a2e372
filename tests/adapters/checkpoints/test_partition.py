"""The checkpoint of one partition: what it promises while it grows, when it is sealed, and after every kind of end."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.adapters.checkpoints.local_storage import LocalStorage
from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint, peek, try_open
from airflow_provider_ai.adapters.checkpoints.partition_files import SealedPartition
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.core.report import QuarantineReason
from airflow_provider_ai.exceptions import CorruptCheckpointError, PartitionBusyError
from airflow_provider_ai.testing import InMemoryStorage
from tests.adapters.checkpoints.partitions import (
    ROWS,
    WHERE,
    WatchedStorage,
    bad,
    expected,
    files_of,
    good,
    opened,
    restored,
    scores,
)

ALL = range(ROWS)


def logs(storage: CheckpointStorage) -> list[str]:
    return [name for name in storage.names() if name.endswith(".wal")]


def killed_with(*outcomes: object) -> InMemoryStorage:
    """What a runner leaves that has recorded these and was killed."""
    storage = WatchedStorage()
    checkpoint = opened(storage)
    for outcome in outcomes:
        checkpoint.record(outcome)  # type: ignore[arg-type]
    return restored(storage.snapshot())


# --- growing and sealing


def test_a_partition_from_its_first_record_to_its_seal(storage: CheckpointStorage) -> None:
    """On every kind of storage: all counts, all rows once, and nothing but segments and the seal is left."""
    checkpoint = opened(storage, rotate_records=4)
    assert len(checkpoint.done) == 0
    for row in range(0, 10, 2):
        checkpoint.record(good(row, row + 1))
        checkpoint.sync()
    checkpoint.record(bad(10))
    checkpoint.record(bad(11, error_class="timeout", status=None))
    assert len(checkpoint.done) == ROWS
    sealed = checkpoint.complete()
    checkpoint.close()
    assert (sealed.rows, sealed.succeeded, sealed.quarantined) == (ROWS, 10, 2)
    assert sealed.columns == (("score", "double"),)
    assert {(r.error_class, r.status, r.count) for r in sealed.reasons} == {("rejected", 400, 1), ("timeout", None, 1)}
    assert scores(storage, sealed) == expected(range(10))
    assert files_of(storage).finished(0) == sealed
    assert logs(storage) == []


def test_what_was_recorded_is_found_by_the_next_one() -> None:
    """Without any sync, close or seal: the runner was killed."""
    storage = killed_with(good(0, 1), bad(5), good(7))
    checkpoint = opened(storage)
    assert checkpoint.succeeded.members().tolist() == [0, 1, 7]
    assert checkpoint.given_up.members().tolist() == [5]
    assert checkpoint.reasons == (QuarantineReason(error_class="rejected", status=400, count=1),)


def test_a_resume_seals_what_others_left() -> None:
    """Its own outcomes and those of a killed runner make one partition."""
    storage = killed_with(good(0, 1, 2), bad(3))
    checkpoint = opened(storage)
    checkpoint.record(good(*range(4, ROWS)))
    sealed = checkpoint.complete()
    assert (sealed.succeeded, sealed.quarantined) == (ROWS - 1, 1)
    assert scores(storage, sealed) == expected([row for row in ALL if row != 3])


def test_a_row_that_stands_twice_counts_and_is_published_once() -> None:
    """Two runners had it, of which one was frozen: in two logs, and in a segment and a log."""
    first, second = WatchedStorage(), WatchedStorage()
    for storage in (first, second):
        opened(storage).record(good(0, 1, 2))
    both = restored({**first.snapshot(), **second.snapshot()})
    checkpoint = opened(both)
    checkpoint.record(good(*range(3, ROWS)))
    sealed = checkpoint.complete()
    assert sealed.succeeded == ROWS
    assert scores(both, sealed) == expected(ALL)


def test_an_answer_outweighs_a_quarantine() -> None:
    """Whichever of two runners came first: what is paid for is kept."""
    for outcomes in ([bad(0), good(0)], [good(0), bad(0)]):
        checkpoint = opened(killed_with(*outcomes))
        assert (len(checkpoint.succeeded), len(checkpoint.given_up)) == (1, 0)


def test_the_content_changes_when_the_outputs_do() -> None:
    """And only then: a seal made anew from the same segments does not have its partition published again."""
    storage = killed_with(good(*ALL))
    sealed = opened(storage).complete()
    again = restored({name: storage.read(name) or b"" for name in storage.names() if name != "done-000.json"})
    assert opened(again).complete().content == sealed.content
    other = killed_with(good(*ALL, at=2))
    assert opened(other).complete().content != sealed.content


# --- rounds


def test_retry_failed_calls_the_quarantined_again() -> None:
    """A new round knows that they failed before, and the seal of the old round is not its own."""
    storage = killed_with(good(*range(10)), bad(10), bad(11))
    first = opened(storage)
    first.complete()
    first.close()
    assert files_of(storage).sealed(1) is None
    second = opened(storage, round_=1)
    assert len(second.given_up) == 0
    assert second.given_up_before.members().tolist() == [10, 11]
    assert second.done.missing(0, ROWS).tolist() == [10, 11]
    second.record(good(10))
    second.record(bad(11, round_=1))
    sealed = second.complete()
    assert (sealed.succeeded, sealed.quarantined) == (11, 1)
    assert scores(storage, sealed) == expected(range(11))


# --- every moment a runner may die


def life_of_a_runner(storage: WatchedStorage, recorded: set[int]) -> None:
    """It takes over a log, rotates its own ones, and seals. ``recorded``: the rows that must survive its death."""
    checkpoint = opened(storage, rotate_records=4)
    for row in range(2, ROWS):
        checkpoint.record(bad(row) if row == 10 else good(row))
        recorded.add(row)
        checkpoint.sync()
    checkpoint.complete()
    checkpoint.close()


def began() -> WatchedStorage:
    storage = WatchedStorage()
    opened(storage).record(good(0, 1))
    storage.break_locks()
    return storage


def test_killed_before_and_after_each_write_and_deletion() -> None:
    """Nothing that was recorded is lost, counted twice or published twice, and a resume seals the same partition."""
    storage, recorded = began(), {0, 1}
    moments: list[tuple[str, dict[str, bytes], set[int]]] = []

    def note(operation: str, name: str) -> None:
        moments.append((f"{operation} {name}", storage.snapshot(), set(recorded)))

    storage.before = storage.after = note
    life_of_a_runner(storage, recorded)
    assert len(moments) >= 2 * (4 + 1 + 3 + 1)  # four good segments and a bad one, three logs and an inherited one
    for moment, blobs, survivors in moments:
        left = restored(blobs)
        checkpoint = opened(left)
        assert set(checkpoint.done.members().tolist()) == survivors, moment
        for row in set(ALL) - survivors:
            checkpoint.record(bad(row) if row == 10 else good(row))
        sealed = checkpoint.complete()
        assert (sealed.succeeded, sealed.quarantined) == (ROWS - 1, 1), moment
        assert scores(left, sealed) == expected([row for row in ALL if row != 10]), moment
        assert logs(left) == [], moment


def failures() -> list[tuple[str, int]]:
    """Every write and deletion in the life of a runner, by kind and number."""
    storage, counts = began(), {"write": 0, "delete": 0}

    def count(operation: str, name: str) -> None:
        counts[operation] += 1

    storage.before = count
    life_of_a_runner(storage, set())
    return [(operation, number) for operation, total in counts.items() for number in range(total)]


@pytest.mark.parametrize(("operation", "number"), failures())
def test_a_step_of_sealing_that_fails_is_taken_again(operation: str, number: int) -> None:
    """By the next sync or the next attempt to complete; the seal then covers every row."""
    storage, left = began(), [number]

    def fail_once(done: str, name: str) -> None:
        if done == operation:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(5, "Input/output error")

    storage.before = fail_once
    checkpoint = opened(storage, rotate_records=4)
    failed = 0
    for row in range(2, ROWS):
        checkpoint.record(bad(row) if row == 10 else good(row))
        try:
            checkpoint.sync()
        except OSError:
            failed += 1
    try:
        sealed = checkpoint.complete()
    except OSError:
        failed += 1
        sealed = checkpoint.complete()
    checkpoint.close()
    assert failed == 1
    assert (sealed.succeeded, sealed.quarantined) == (ROWS - 1, 1)
    assert scores(storage, sealed) == expected([row for row in ALL if row != 10])


def test_a_volume_that_stays_full() -> None:
    """What was recorded before is whole, and a resume with room finishes it."""
    storage = InMemoryStorage()
    checkpoint = opened(storage)
    checkpoint.record(good(0))
    storage.refuse_writes()
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            checkpoint.record(good(1))
    storage.accept_writes()
    storage.break_locks()
    assert opened(storage).done.members().tolist() == [0]


# --- damage


def damaged(storage: CheckpointStorage, name: str, at: int) -> None:
    data = bytearray(storage.read(name) or b"")
    data[at] ^= 1
    storage.write(name, bytes(data))


@pytest.mark.parametrize("cut", [1, 7, 15, 20])
def test_a_torn_tail_costs_its_record(cut: int) -> None:
    """And nothing else: the record is called again."""
    storage = killed_with(good(0), good(1), good(2))
    (log,) = logs(storage)
    storage.write(log, (storage.read(log) or b"")[:-cut])
    assert opened(storage).done.members().tolist() == [0, 1]


def test_a_log_of_nothing_but_a_torn_frame() -> None:
    """The runner was killed in its first append."""
    storage = killed_with(good(0))
    (log,) = logs(storage)
    storage.write(log, (storage.read(log) or b"")[:10])
    assert len(opened(storage).done) == 0


def test_a_damaged_byte_inside_a_log_is_refused() -> None:
    """By name, with the offset and with what deleting it would cost; the lock is free afterwards."""
    storage = killed_with(good(0), good(1), good(2))
    (log,) = logs(storage)
    damaged(storage, log, 20)
    for _ in range(2):
        with pytest.raises(CorruptCheckpointError, match=rf"{WHERE}/{log} is corrupt at byte 0.*delete it"):
            try_open(files_of(storage), rows=ROWS, round_=0, holder="test")
    storage.delete(log)
    assert len(opened(storage).done) == 0


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_a_damaged_segment_is_refused(kind: str) -> None:
    """By name; without it, its records are called again."""
    storage = killed_with(good(*range(10)), bad(10), bad(11))
    first = opened(storage)
    first.complete()
    first.close()
    (segment,) = (name for name in storage.names() if name.startswith(kind))
    damaged(storage, segment, 100)
    with pytest.raises(CorruptCheckpointError, match=rf"{segment} is corrupt.*delete it"):
        try_open(files_of(storage), rows=ROWS, round_=0, holder="test")
    storage.delete(segment)
    missing = opened(storage).done.missing(0, ROWS).tolist()
    assert missing == (list(range(10)) if kind == "good" else [10, 11])


def test_a_segment_that_is_missing() -> None:
    """The partition is not finished any more; reading it all the same says what to do."""
    storage = killed_with(good(*ALL))
    sealed = opened(storage).complete()
    storage.delete(sealed.good[0])
    assert files_of(storage).finished(0) is None
    with pytest.raises(CorruptCheckpointError, match=f"{sealed.good[0]} is missing.*clear its infer task"):
        list(files_of(storage).good_tables(sealed))


def test_a_damaged_seal_is_made_anew() -> None:
    """Refused by name; deleted, a resume seals the same content without a call."""
    storage = killed_with(good(*ALL))
    first = opened(storage)
    sealed = first.complete()
    first.close()
    damaged(storage, "done-000.json", 20)
    with pytest.raises(CorruptCheckpointError, match=r"done-000\.json is damaged. Delete it"):
        files_of(storage).sealed(0)
    storage.delete("done-000.json")
    again = opened(storage)
    assert len(again.done) == ROWS
    assert again.complete() == sealed


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b'{"rows":3}', b"\xff"])
def test_what_is_no_seal(data: bytes) -> None:
    """ValueError, whatever it is."""
    with pytest.raises(ValueError):  # noqa: PT011 - of the JSON library or of ours
        SealedPartition.from_json(data)


def test_a_checkpoint_of_another_partition_is_refused() -> None:
    """Row numbers beyond the partition never become rows of it."""
    with pytest.raises(IndexError):
        opened(killed_with(good(*ALL)), rows=ROWS - 1)


# --- the lock


def test_a_busy_partition_is_not_opened(storage: CheckpointStorage) -> None:
    """None; once it is closed, the next one opens it."""
    first = try_open(files_of(storage), rows=ROWS, round_=0, holder="first")
    assert first is not None
    assert try_open(files_of(storage), rows=ROWS, round_=0, holder="second") is None
    first.close()
    second = try_open(files_of(storage), rows=ROWS, round_=0, holder="second")
    assert second is not None
    second.close()


@pytest.mark.parametrize("step", ["sync", "show_life", "complete"])
def test_one_that_was_taken_over_stops(step: str) -> None:
    """And writes no seal; what it has recorded is its heir's."""
    storage = InMemoryStorage()
    frozen = opened(storage)
    frozen.record(good(*ALL))
    storage.break_locks()
    heir = opened(storage)
    with pytest.raises(PartitionBusyError, match=r"took .* over"):
        getattr(frozen, step)()
    assert files_of(storage).sealed(0) is None
    assert len(heir.done) == ROWS
    assert heir.complete().succeeded == ROWS


class BlindLock:
    """A runner that was frozen after it last looked at its lock."""

    def beat(self) -> bool:
        return True

    def release(self) -> None:
        return None


def test_one_whose_log_was_sealed_by_its_heir_stops() -> None:
    """Also when it cannot have known from its lock: it has nothing in its memory that a seal could be made of."""
    storage = InMemoryStorage()
    frozen = PartitionCheckpoint(files_of(storage), BlindLock(), rows=ROWS, round_=0)
    frozen.record(good(*ALL))
    heir = opened(storage)
    sealed = heir.complete()
    with pytest.raises(PartitionBusyError, match=r"took .* over"):
        frozen.complete()
    assert files_of(storage).sealed(0) == sealed
    assert scores(storage, sealed) == expected(ALL)


def test_a_peek_changes_nothing(tmp_path: Path) -> None:
    """Beside a runner that works: no lock, no file, no tidying."""
    storage = LocalStorage(tmp_path)
    worker = opened(storage)
    worker.record(good(0, 1))
    worker.record(bad(2))
    before = sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir())
    seen = peek(files_of(storage), rows=ROWS, round_=0)
    assert (len(seen.succeeded), len(seen.given_up)) == (2, 1)
    assert sorted((path.name, path.read_bytes()) for path in tmp_path.iterdir()) == before
    worker.close()
