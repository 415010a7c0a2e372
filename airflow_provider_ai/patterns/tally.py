"""The counts of a running batch, and the rate over the last seconds."""

from __future__ import annotations

from collections import Counter, deque

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.ports import Usage
from airflow_provider_ai.patterns.work import PartitionRun

_WINDOW_SECONDS = 10.0


class Tally:
    """Counts over all partitions opened so far. ``reused`` and what it contains came from checkpoints."""

    def __init__(self, prices: EndpointSettings) -> None:
        self.requests = 0
        self.succeeded = 0
        self.quarantined = 0
        self.reused = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._prices = prices
        self._reasons: Counter[tuple[str, int | None]] = Counter()
        self._samples: deque[tuple[float, int]] = deque()

    @property
    def done(self) -> int:
        """Rows with an outcome."""
        return self.succeeded + self.quarantined

    @property
    def cost_usd(self) -> float:
        """What this run's calls cost at the connection's prices."""
        prices = self._prices
        tokens = self.prompt_tokens * prices.price_per_million_input_tokens
        tokens += self.completion_tokens * prices.price_per_million_output_tokens
        return tokens / 1e6 + self.requests * prices.price_per_call

    def opened(self, run: PartitionRun) -> None:
        """Count what a partition's checkpoint already holds."""
        self.finished_before(succeeded=len(run.journal.succeeded), quarantined=len(run.journal.given_up))

    def finished_before(self, *, succeeded: int, quarantined: int) -> None:
        """Count a partition that was sealed before this run."""
        self.reused += succeeded + quarantined
        self.succeeded += succeeded
        self.quarantined += quarantined

    def used(self, usage: Usage) -> None:
        """Count a call's tokens."""
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens

    def gave_up(self, error_class: str, status: int | None) -> None:
        """Count a quarantined record."""
        self.quarantined += 1
        self._reasons[error_class, status] += 1

    def reasons_text(self) -> str:
        """The three most frequent reasons of this run, for messages."""
        parts = [
            f"{name}{'' if status is None else f' (HTTP {status})'} × {count}"
            for (name, status), count in self._reasons.most_common(3)
        ]
        return ", ".join(parts) or "found in the checkpoints"

    def rate(self, now: float) -> float:
        """Records per second over the last ten seconds; call it at a steady pace. ``now``: monotonic seconds."""
        self._samples.append((now, self.done - self.reused))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return (self.done - self.reused - before) / (now - then) if now > then else 0.0
