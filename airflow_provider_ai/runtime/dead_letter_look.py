"""How many dead letters there are: those that a dispatcher has taken into the store, and those still in the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_ai.adapters.crypto.opening import open_codec
from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.job_ports import DeadLetter, DeadLetterStore
from airflow_provider_ai.runtime.job_service import JobSettings
from airflow_provider_ai.runtime.request_reply import STORE_TIMEOUT_SECONDS

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterLook:
    """What one look has found.

    :param kept: letters of this deployment in the store, of which ``reasons`` says how many there are for each reason
    :param queued: messages in the dead letter queue, roughly
    """

    kept: int
    queued: int
    reasons: dict[str, int]

    @property
    def any(self) -> bool:
        """Whether there are dead letters."""
        return bool(self.kept or self.queued)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def look_at_dead_letters(settings: JobSettings, *, since: float = 0.0) -> DeadLetterLook:
    """Look once; takes nothing away.

    :param since: epoch seconds: letters that were kept before do not count
    """
    store = open_store(settings.store, timeout_seconds=STORE_TIMEOUT_SECONDS, codec=open_codec(settings.keys))
    transport = open_transport(settings.transport)
    try:
        reasons = _reasons(store.dead_letters(), settings.transport.queues, since)
        return DeadLetterLook(
            kept=reasons.total(), queued=transport.dead_letters.depth(), reasons=dict(reasons.most_common())
        )
    finally:
        transport.close()
        store.close()


def _reasons(letters: DeadLetterStore, sources: Collection[str], since: float) -> Counter[str]:
    reasons: Counter[str] = Counter()
    after: DeadLetter | None = None
    while page := letters.letters(most=_PAGE, after=after):
        reasons.update(each.reason for each in page if each.source in sources and each.received_at >= since)
        after = page[-1]
    return reasons
