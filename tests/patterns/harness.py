"""Runs of the inference engine over fakes: what goes in, one call to run it, and what must hold afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.adapters.checkpoints.partition import PartitionCheckpoint, try_open
from airflow_provider_ai.adapters.checkpoints.partition_files import PartitionFiles, SealedPartition
from airflow_provider_ai.adapters.checkpoints.segments import from_bytes, quarantined
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.config import EndpointSettings, Limits
from airflow_provider_ai.core.identity import record_key
from airflow_provider_ai.core.outcomes import Quarantined
from airflow_provider_ai.core.ports import ModelEndpoint, Request, RowBlock
from airflow_provider_ai.core.report import StopToken
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.patterns.inference_engine import InferenceEngine, RunOpener
from airflow_provider_ai.patterns.tally import Tally
from airflow_provider_ai.patterns.work import PartitionRun
from airflow_provider_ai.testing import Fault, InMemoryStorage
from tests.patterns import virtual_time

SETTINGS = EndpointSettings(url="http://model.example", protocol="json", model="m", price_per_call=0.5)


def between(start: float, end: float, fault: Fault) -> Callable[[float], Fault | None]:
    """An outage in the seconds ``[start, end)`` of virtual time."""
    return lambda now: fault if start <= now - virtual_time.START < end else None


@dataclass(kw_only=True)
class Bench:
    """A batch of ``partitions`` (records each) and everything an engine needs; :meth:`run` may be called again.

    :param early: rows by which the reader ends early
    """

    partitions: Sequence[int] = (100,)
    limits: Limits = field(default_factory=Limits)
    request: Request = field(default_factory=JsonRequest)
    allowance: int | None = None
    sync_seconds: float = 1.0
    block_rows: int = 1000
    early: int = 0
    seed: int = 1
    round: int = 0
    storage: InMemoryStorage = field(default_factory=InMemoryStorage)
    stop: StopToken = field(default_factory=StopToken)
    record_of: Callable[[str], Mapping[str, Any]] = lambda record_id: {"id": record_id}
    seconds: float = 0.0
    blocks_read: int = 0
    journals: list[PartitionCheckpoint] = field(default_factory=list)
    tally: Tally = field(default_factory=lambda: Tally(SETTINGS))
    engine: InferenceEngine | None = None

    @property
    def rows(self) -> int:
        return sum(self.partitions)

    def run(
        self,
        endpoint: ModelEndpoint,
        *,
        on_tick: Callable[[InferenceEngine], None] = lambda engine: None,
        limit_seconds: float = 3600.0,
    ) -> None:
        """One run of a fresh engine in virtual time; raises what the engine raises."""
        self.journals = []
        self.tally = Tally(SETTINGS)

        async def main() -> None:
            engine = self.engine = self.make_engine(endpoint)
            await engine.run(self.openers(), on_tick=lambda: on_tick(engine))

        outcome = virtual_time.Outcome()
        try:
            virtual_time.run(main(), outcome, limit_seconds=limit_seconds)
        finally:
            self.seconds = outcome.seconds

    def make_engine(self, endpoint: ModelEndpoint) -> InferenceEngine:
        return InferenceEngine(
            endpoint=endpoint,
            settings=SETTINGS,
            request=self.request,
            limits=self.limits,
            quarantine_allowance=self.rows if self.allowance is None else self.allowance,
            sync_seconds=self.sync_seconds,
            stop=self.stop,
            tally=self.tally,
            seed=self.seed,
        )

    def openers(self) -> list[RunOpener]:
        return [lambda halted, index=index: self.open(index) for index in range(len(self.partitions))]  # type: ignore[misc]

    def open(self, index: int) -> PartitionRun:
        rows = self.partitions[index]
        journal = try_open(self.files(index), rows=rows, round_=self.round, holder="test")
        assert journal is not None
        self.journals.append(journal)
        return PartitionRun(
            index=index,
            rows=rows,
            journal=journal,
            blocks=self._blocks(index, journal),
            id_column="id",
            key_of=record_key,
        )

    def files(self, index: int) -> PartitionFiles:
        return PartitionFiles(self.storage.folder(f"p{index}"), IdentityCodec(), where=f"p{index}")

    def _blocks(self, index: int, journal: PartitionCheckpoint) -> Iterator[RowBlock]:
        done = journal.done
        rows = [row for row in range(self.partitions[index] - self.early) if row not in done]
        for start in range(0, len(rows), self.block_rows):
            block = rows[start : start + self.block_rows]
            self.blocks_read += 1
            yield RowBlock(block, [self.record_of(f"{index}-{row}") for row in block])

    def sealed(self, index: int = 0) -> SealedPartition | None:
        return self.files(index).sealed(self.round)

    def outputs(self) -> dict[str, dict[str, Any]]:
        """Record id → output columns, of all sealed partitions; no record may stand twice."""
        found: dict[str, dict[str, Any]] = {}
        for index in range(len(self.partitions)):
            sealed = self.sealed(index)
            for table in self.files(index).good_tables(sealed) if sealed else ():
                for row in table.to_pylist():
                    assert row["id"] not in found, "a record stands twice"
                    found[row["id"]] = {name: value for name, value in row.items() if name.startswith("out:")}
        return found

    def reasons(self, index: int = 0) -> dict[tuple[str, int | None], int]:
        """Why records of a sealed partition were given up."""
        sealed = self.sealed(index)
        assert sealed is not None
        return {(reason.error_class, reason.status): reason.count for reason in sealed.reasons}

    def given_up(self, index: int = 0) -> list[Quarantined]:
        """The quarantined records of a partition, over all rounds."""
        files = self.files(index)
        names = [name for name in files.storage.names() if name.startswith("bad-")]
        return [found for name in names for found in quarantined(from_bytes(files.segment(name)))]

    def kept(self) -> Counter[str]:
        """What a later run would find: rows succeeded, given up and pending over all partitions."""
        counts: Counter[str] = Counter()
        self.storage.break_locks()
        for index, rows in enumerate(self.partitions):
            journal = try_open(self.files(index), rows=rows, round_=self.round, holder="look")
            assert journal is not None
            counts += Counter(
                succeeded=len(journal.succeeded), given_up=len(journal.given_up), pending=rows - len(journal.done)
            )
            journal.close()
        return counts
