"""The audit in the formats of others, as lines, in order of chain and number; memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.core.audit import KEY_BYTES
from airflow_provider_ai.core.audit_chain import Row
from airflow_provider_ai.core.audit_formats import AS


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """What is exported.

    :param since_us: microseconds since the epoch: events from then on, and before ``until_us``
    :param run_id: of an Airflow run
    :param record_key: 32 hex digits; events of others with the same digest are about the same records, and count
    """

    since_us: int | None = None
    until_us: int | None = None
    run_id: str | None = None
    record_key: str | None = None


def exported(reader: AuditReader, form: str, chosen: ExportFilter) -> Iterator[bytes]:
    """Each event that is chosen, as one line of JSON without its end."""
    make, matches = AS[form], _Matches(chosen)
    for page in reader.pages():
        for values in page:
            row = Row(*values)
            if matches(row):
                yield orjson.dumps(make(row))


class _Matches:
    def __init__(self, chosen: ExportFilter) -> None:
        self._chosen = chosen
        self._key = None if chosen.record_key is None else bytes.fromhex(chosen.record_key)
        self._digests: set[str] = set()

    def __call__(self, row: Row) -> bool:
        chosen = self._chosen
        if self._key is not None and not self._is_about(row):
            return False
        if chosen.since_us is not None and row.at_us < chosen.since_us:
            return False
        if chosen.until_us is not None and row.at_us >= chosen.until_us:
            return False
        return chosen.run_id is None or orjson.loads(row.facts)["actor"].get("run_id") == chosen.run_id

    def _is_about(self, row: Row) -> bool:
        """Its keys hold the record's, or are those of an earlier event that did."""
        if row.keys is None:
            return row.digest in self._digests
        found = (row.keys[start : start + KEY_BYTES] for start in range(0, len(row.keys), KEY_BYTES))
        if not any(key == self._key for key in found):
            return False
        self._digests.add(row.digest)
        return True
