"""Synchronous calls, audited: an intention before an endpoint is asked, and an end before its answer is used.

Both happen within the call's deadline, in threads that can be left behind. An endpoint whose intention cannot be kept
in time is not asked, and an answer whose end cannot be kept is not handed out: the fallbacks answer instead. So does a
last good answer whose reading cannot be kept.

A record is named by its ``id`` where it has one, and otherwise by all that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from airflow_provider_ai.core.audit import AuditAction, AuditEvent
from airflow_provider_ai.core.call_ports import GoodAnswer, GoodAnswers
from airflow_provider_ai.core.call_verdict import Ending
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.patterns.auditing import FAILED, INTENDED, SUCCEEDED, Auditor
from airflow_provider_ai.patterns.call_exchange import Question, Target

_ID = "id"
_ID_TYPES = (int, str)


@dataclass(frozen=True, slots=True)
class Intention:
    """What both events of a call have in common."""

    keys: tuple[str, ...]
    model: str
    prompt_hash: str
    reference: str


class CallAudit:
    """Audits calls of endpoints. Thread-safe; methods block and raise AuditError."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor
        self._hashes: dict[tuple[str, int], str] = {}

    def intend(self, target: Target, question: Question) -> Intention:
        """An endpoint is about to be asked."""
        intention = Intention(
            keys=tuple(map(self._key, question.records.records)),
            model=target.settings.model,
            prompt_hash=self._prompt_hash(target),
            reference=target.name,
        )
        self._auditor.record(self._event(intention, None, over=False))
        return intention

    def conclude(self, intention: Intention, ending: Ending | None) -> None:
        """It was asked; ``ending`` says why there is no answer."""
        self._auditor.record(self._event(intention, ending, over=True))

    def _event(self, intention: Intention, ending: Ending | None, *, over: bool) -> AuditEvent:
        return self._auditor.event(
            AuditAction.INFER,
            INTENDED if not over else SUCCEEDED if ending is None else FAILED,
            keys=intention.keys,
            by_digest=over,
            model=intention.model,
            prompt_hash=intention.prompt_hash,
            reference=intention.reference,
            reason=None if ending is None else ending.reason,
        )

    def _key(self, record: Mapping[str, Any]) -> str:
        name = record.get(_ID)
        if type(name) in _ID_TYPES:
            return self._auditor.key(name)
        return self._auditor.key(orjson.dumps(record, default=str, option=orjson.OPT_SORT_KEYS))

    def _prompt_hash(self, target: Target) -> str:
        asked = (target.name, id(target.request))
        if asked not in self._hashes:
            self._hashes[asked] = digest("request", target.request.identity(), length=16)
        return self._hashes[asked]


class AuditedGoodAnswers:
    """Last good answers, each reading of one audited before it is handed out."""

    def __init__(self, inner: GoodAnswers, auditor: Auditor) -> None:
        self._inner = inner
        self._auditor = auditor

    def load(self, key: str) -> GoodAnswer | None:
        """The answer kept under ``key``."""
        found = self._inner.load(key)
        if found is not None:
            auditor = self._auditor
            read = auditor.event(AuditAction.READ, SUCCEEDED, model=found.model, reference=key, reason="last_good")
            auditor.record(read)
        return found

    def save(self, key: str, output: Any, *, model: str) -> None:
        """Keep an answer in place of an older one."""
        self._inner.save(key, output, model=model)
