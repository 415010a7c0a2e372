"""Datasets whose rows are requests: planned once for a submission, so that each attempt means the same jobs.

The plan lies with the claim checks. It holds file names and row numbers, so the replies can be laid out as the dataset
was long after its files have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from airflow_provider_ai.adapters.checkpoints.plans import PlanPointer, PlanStore, open_storage
from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.datasets import DatasetReader, plan_dataset
from airflow_provider_ai.core.config import InputSettings
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import PartitionReader
from airflow_provider_ai.exceptions import CheckpointError, SpecError
from airflow_provider_ai.patterns.audited_reader import AuditedReader
from airflow_provider_ai.patterns.auditing import Auditor
from airflow_provider_ai.patterns.request_reply import dataset_requests
from airflow_provider_ai.runtime.job import writing_checkpoints
from airflow_provider_ai.runtime.job_service import JobSettings


class JobDatasets:
    """The datasets of a deployment's submissions."""

    def __init__(self, settings: JobSettings) -> None:
        uri = settings.claim_check.uri
        if uri is None:
            raise SpecError("a claim check uri must be set to submit a dataset: its plan is kept there")
        self._storage = settings.storage
        self._plans = PlanStore(open_storage(uri, settings.storage), open_codec(settings.keys), uri=uri)

    def planned(self, submission: str) -> Manifest | None:
        """What was planned for a submission; None for one whose requests were no dataset."""
        pointer = self._plans.pointer(submission)
        if pointer is None:
            return None
        manifest = self._plans.manifest(pointer.key, fingerprint=pointer.fingerprint)
        if manifest is None:
            raise CheckpointError(f"{self._plans.directory(pointer.key)}/manifest.json is gone: restore it")
        return manifest

    def plan(self, submission: str, input: InputSettings) -> Manifest:
        """The plan for a submission, made when there is none yet.

        :raises InputError: the dataset cannot be used as it is
        """
        manifest = self.planned(submission)
        if manifest is None:
            manifest = plan_dataset(input, self._storage, needed_columns=input.columns)
            key = f"dataset-{manifest.fingerprint}"
            pointer = PlanPointer(key=key, fingerprint=manifest.fingerprint, listing=manifest.listing)
            with writing_checkpoints():
                self._plans.save_manifest(key, manifest)
                self._plans.point(submission, pointer)
        return manifest

    def requests(
        self, manifest: Manifest, columns: Sequence[str] | None = None, *, auditor: Auditor, submission: str
    ) -> Iterator[Any]:
        """The rows of a planned dataset as requests, a block at a time; which they are is audited, where that is on."""
        reader: PartitionReader = DatasetReader(self._storage, columns=columns)
        if auditor.on:
            reader = AuditedReader(reader, auditor, reference=submission)
        return dataset_requests(reader, manifest)
