"""What a batch is made of, and its adapters opened."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_ai.adapters.checkpoints.partition_files import SealedPartition
from airflow_provider_ai.adapters.checkpoints.plans import PlanStore, key_of, open_storage
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.core.config import (
    CheckpointSettings,
    EndpointSettings,
    InputSettings,
    Limits,
    SinkSettings,
    StorageOptions,
)
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import Request, Sink
from airflow_provider_ai.core.report import PlanReference, Progress
from airflow_provider_ai.core.requests.batchable import check_batch_request
from airflow_provider_ai.exceptions import CheckpointError, CheckpointWriteError, SpecError
from airflow_provider_ai.patterns.batch_inference import Provenance
from airflow_provider_ai.runtime.auditing import Audit

if TYPE_CHECKING:
    from airflow_provider_ai.core.key_settings import KeySettings

OnProgress = Callable[[Progress], None]

READERS = 16
"""Partitions looked at side by side: on an object store each look waits for a network."""


def read_seals(store: PlanStore, plan: PlanReference, indexes: Iterable[int]) -> list[SealedPartition | None]:
    """The seals of partitions, in order; None for one that still has something to do."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="ai-seals") as pool:
        return list(pool.map(lambda index: store.files(plan, index).finished(plan.round), indexes))


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJob:
    """Everything a batch needs. ``sink`` may be absent where only inference is run.

    :param keys: encrypt what is kept; None for checkpoints in clear
    :param audit: None for no audit
    """

    input: InputSettings
    endpoint: EndpointSettings
    request: Request
    limits: Limits
    checkpoint: CheckpointSettings
    sink: SinkSettings | None = None
    storage: StorageOptions | None = None
    keys: KeySettings | None = None
    audit: Audit | None = None

    def __post_init__(self) -> None:
        check_batch_request(self.request)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Input columns to read besides the id; None for all."""
        needed = self.request.columns
        return self.input.columns if needed is None else tuple(needed)

    @property
    def prompt_hash(self) -> str:
        """16 hex digits of everything that shapes a request (prompt, parameters, schema)."""
        return digest("request", self.request.identity(), length=16)

    @property
    def schema_version(self) -> str:
        """12 hex digits of the declared output schema; the same for all requests that declare none."""
        return digest("output_schema", self.request.identity().get("output_schema"), length=12)


def open_plans(job: BatchJob) -> PlanStore:
    """The plans and checkpoints below the job's checkpoint URI."""
    return PlanStore(open_storage(job.checkpoint.uri, job.storage), open_codec(job.keys), uri=job.checkpoint.uri)


def open_warehouse(job: BatchJob, **options: float) -> Sink:
    """The job's sink, with ``options`` of :func:`open_sink`; SpecError when it has none."""
    from airflow_provider_ai.adapters.sinks import open_sink

    if job.sink is None:
        raise SpecError("a sink must be set to publish, got none")
    return open_sink(job.sink, **options)


def load_manifest(store: PlanStore, plan: PlanReference) -> Manifest:
    """The plan's manifest; CheckpointError when it is gone."""
    manifest = store.manifest(key_of(plan), fingerprint=plan.fingerprint)
    if manifest is None:
        raise CheckpointError(f"{plan.directory}/manifest.json is gone: run the plan step again")
    return manifest


def provenance(job: BatchJob, run_id: str) -> Provenance:
    """What every row of the run says of its origin."""
    return Provenance(
        run_id=run_id, model=job.endpoint.model, prompt_hash=job.prompt_hash, schema_version=job.schema_version
    )


@contextmanager
def writing_checkpoints() -> Iterator[None]:
    """OSError while writing below the checkpoint URI becomes a CheckpointWriteError that says what to do."""
    try:
        yield
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "no reason given")
        raise CheckpointWriteError(
            f"cannot write below the checkpoint URI ({type(error).__name__}: {reason}). Check that it exists, is "
            "writable and has room; a retry resumes"
        ) from None


def report_progress(on_progress: OnProgress | None, **values: Any) -> None:
    """Tell the listener, if there is one."""
    if on_progress is not None:
        on_progress(Progress(**values))
