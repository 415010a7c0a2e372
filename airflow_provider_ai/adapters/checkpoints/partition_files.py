"""The blobs of one partition, read: its seal, its segments, its logs. Everything passes through the codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa

from airflow_provider_ai.adapters.checkpoints import segments
from airflow_provider_ai.adapters.checkpoints.documents import from_document, to_document
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.core.arrow_arrays import bool_array, numbers_of
from airflow_provider_ai.core.frames import CorruptFrameError, scan_frames
from airflow_provider_ai.core.outcomes import Outcome, Succeeded, decode_outcome
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.purposes import CHECKPOINT
from airflow_provider_ai.core.report import QuarantineReason
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.exceptions import CiphertextError, CorruptCheckpointError


def done_name(round_: int) -> str:
    """The name of a round's seal."""
    return f"done-{round_:03d}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPartition:
    """A finished partition: ``succeeded + quarantined = rows``.

    :param good: names of the segments with outputs
    :param columns: ``((output column, Arrow type as text or "json"), …)`` per segment, distinct
    :param content: changes when the outputs do
    """

    rows: int
    succeeded: int
    quarantined: int
    good: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    reasons: tuple[QuarantineReason, ...]
    content: str

    def to_json(self) -> bytes:
        """Canonical bytes."""
        return to_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> SealedPartition:
        """The inverse of :meth:`to_json`; ValueError when the bytes are damaged."""
        body = from_document(data)
        body["good"] = tuple(body["good"])
        body["columns"] = tuple((name, kind) for name, kind in body["columns"])
        body["reasons"] = tuple(QuarantineReason(**reason) for reason in body["reasons"])
        return cls(**body)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogContent:
    """The outcomes in a log of ``size`` bytes."""

    outcomes: list[Outcome]
    size: int

    @property
    def records(self) -> int:
        """Records that the outcomes are of."""
        return sum(len(outcome.rows) if isinstance(outcome, Succeeded) else 1 for outcome in self.outcomes)


class PartitionFiles:
    """The blobs of one partition through the codec. Reads only.

    :param where: the folder, for people
    :param place: the same wherever the checkpoints are moved to: what stored bytes are bound to
    """

    def __init__(self, storage: CheckpointStorage, codec: Codec, *, where: str, place: str | None = None) -> None:
        self.storage = storage
        self.codec = codec
        self.where = where
        self._place = where if place is None else place

    def context(self, name: str) -> dict[str, str]:
        """What binds stored bytes to their place. The rows of an outcome are in the bytes themselves."""
        return {"what": CHECKPOINT, "partition": self._place, "name": name}

    def sealed(self, round_: int) -> SealedPartition | None:
        """The seal of a round, or None while the partition is unfinished in it."""
        data = self.storage.read(done_name(round_))
        if data is None:
            return None
        try:
            return SealedPartition.from_json(data)
        except (ValueError, KeyError, TypeError):
            raise CorruptCheckpointError(
                f"checkpoint seal {self.where}/{done_name(round_)} is damaged. Delete it: a resume makes it anew "
                "from the segments without calling the model"
            ) from None

    def finished(self, round_: int) -> SealedPartition | None:
        """The seal of a round if the segments it names are there; None when there is still something to do."""
        sealed = self.sealed(round_)
        return sealed if sealed is not None and set(sealed.good) <= set(self.storage.names()) else None

    def segment(self, name: str) -> bytes:
        """The Arrow IPC bytes of a segment whose checksum holds."""
        stored = self.storage.read(name)
        if stored is None:
            raise CorruptCheckpointError(
                f"checkpoint segment {self.where}/{name} is missing. Run the inference of its partition again (in "
                "Airflow: clear its infer task): the records of that segment are then called again"
            )
        segments.check_name(name, stored, where=self.where)
        return self._decoded(stored, self.context(segments.name_stem(name)), name)

    def outcomes(self, log: str) -> LogContent | None:
        """What a log holds, None when it is gone; a torn tail is ignored, damage elsewhere a CorruptCheckpointError."""
        data = self.storage.read(log)
        if data is None:
            return None
        try:
            scan = scan_frames(data)
        except CorruptFrameError as error:
            raise CorruptCheckpointError(
                f"checkpoint log {self.where}/{log} is corrupt at byte {error.offset}, with sound records behind it. "
                "Restore it from a backup, or delete it: its records will then be called (and paid for) again"
            ) from None
        context = self.context("log")
        found = [decode_outcome(self._decoded(payload, context, log)) for payload in scan.payloads]
        return LogContent(outcomes=found, size=len(data))

    def _decoded(self, stored: bytes, context: dict[str, str], name: str) -> bytes:
        try:
            return self.codec.decode(stored, context=context)
        except CiphertextError as error:
            failure = error.at(f"checkpoint {self.where}/{name}")
        raise failure

    def good_tables(self, sealed: SealedPartition) -> Iterator[pa.Table]:
        """The tables of a sealed partition, every row once, one segment in memory at a time."""
        seen = RowSet(sealed.rows)
        for name in sealed.good:
            table = segments.from_bytes(self.segment(name))
            rows = numbers_of(table["row"])
            fresh = ~seen.mask(rows)
            fresh[1:] &= rows[1:] != rows[:-1]  # ascending: a log written anew after a failed fsync stands twice
            seen.add(rows)
            yield table if fresh.all() else table.filter(bool_array(fresh))
