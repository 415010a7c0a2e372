"""A dataset's reader, audited: each block is handed out once it is on record which records it holds."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_ai.core.audit import AuditAction
from airflow_provider_ai.core.manifest import Manifest, Partition
from airflow_provider_ai.core.ports import PartitionReader, RowBlock
from airflow_provider_ai.core.rowset import RowSet
from airflow_provider_ai.patterns.auditing import SUCCEEDED, Auditor


class AuditedReader:
    """A reader whose blocks are audited.

    :param reference: what they are read for, such as a submission
    """

    def __init__(self, inner: PartitionReader, auditor: Auditor, *, reference: str) -> None:
        self._inner = inner
        self._auditor = auditor
        self._reference = reference

    def blocks(self, manifest: Manifest, partition: Partition, *, done: RowSet) -> Iterator[RowBlock]:
        """See :class:`PartitionReader`."""
        auditor, name = self._auditor, manifest.id_column
        for block in self._inner.blocks(manifest, partition, done=done):
            keys = [auditor.key(record[name]) for record in block.records]
            auditor.record(auditor.event(AuditAction.READ, SUCCEEDED, keys=keys, reference=self._reference))
            yield block
