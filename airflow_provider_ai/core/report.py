"""What a batch says about itself: references that may cross Airflow, progress, and counts that must add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

Phase = Literal["plan", "infer", "publish", "reconcile", "submit", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReference:
    """Where a plan lies and which pass over it is meant. Small, JSON-able, without data: fit for XCom.

    :param run: opaque name of the run that made the plan
    :param directory: URI of the folder with the manifest and the checkpoints of one checkpoint key
    :param fingerprint: of the manifest
    :param epoch: raised by ``recompute``: earlier answers are not looked at
    :param round: raised by ``retry_failed``: records quarantined in earlier rounds are called again
    :param scope: the slice of the target table that belongs to the input
    """

    run: str
    directory: str
    fingerprint: str
    epoch: int
    round: int
    scope: str
    partitions: int
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> PlanReference:
        """The inverse of :meth:`to_dict`; TypeError for missing or unknown keys."""
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A moment of a running phase. Rates over the last seconds; ``eta_seconds`` is None while unknown."""

    phase: Phase
    done: int
    quarantined: int
    total: int
    records_per_second: float = 0.0
    eta_seconds: float | None = None
    concurrency: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, rounded for people."""
        body = asdict(self)
        body["records_per_second"] = round(self.records_per_second, 1)
        body["eta_seconds"] = None if self.eta_seconds is None else round(self.eta_seconds)
        body["cost_usd"] = round(self.cost_usd, 6)
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionReport:
    """One inferred partition: ``succeeded + quarantined + pending = rows``.

    :param requests: HTTP requests of this run (retries included)
    :param reused: records that were finished before this run
    """

    index: int
    rows: int
    succeeded: int
    quarantined: int
    requests: int
    reused: int
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0

    @property
    def pending(self) -> int:
        """Rows without an outcome yet."""
        return self.rows - self.succeeded - self.quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishReport:
    """``published``: rows of this plan that stand in the table; ``written``: those written by this run."""

    published: int
    written: int
    partitions: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """A whole run."""

    records: int
    succeeded: int
    quarantined: int
    requests: int
    reused: int
    published: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """One partition as the checkpoints and the warehouse show it."""

    index: int
    label: str
    rows: int
    succeeded: int
    quarantined: int
    published: bool

    @property
    def pending(self) -> int:
        """Rows a resume would still call."""
        return self.rows - self.succeeded - self.quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineReason:
    """How many records failed for one reason. ``status``: last HTTP status, None when there was no answer."""

    error_class: str
    status: int | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """What a resume would find. ``warehouse``: why publications could not be read, or None."""

    plan: Literal["none", "unfinished", "complete"]
    input_changed: bool
    partitions: tuple[PartitionStatus, ...]
    quarantine: tuple[QuarantineReason, ...]
    warehouse: str | None = None

    @property
    def records(self) -> int:
        """Input rows."""
        return sum(part.rows for part in self.partitions)

    @property
    def would_call(self) -> int:
        """Records a resume would still call."""
        return sum(part.pending for part in self.partitions)


class StopToken:
    """Asks a run to stop. Safe from signal handlers and other threads; the first reason stays.

    A handler may run in the middle of :meth:`wait`, in the same thread: nothing here holds a lock (``SimpleQueue.put``
    is reentrant, ``Event.set`` is not).
    """

    def __init__(self) -> None:
        self.stopped = False
        self.reason = ""
        self._wake: SimpleQueue[None] = SimpleQueue()

    def stop(self, reason: str) -> None:
        """Ask for the stop; the run flushes and raises StoppedError."""
        if not self.stopped:
            self.reason = reason
            self.stopped = True
            self._wake.put(None)

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until a stop is asked for; whether it was."""
        if not self.stopped:
            try:
                self._wake.get(timeout=seconds)
            except Empty:
                return self.stopped
            self._wake.put(None)  # for whoever else waits
        return self.stopped
