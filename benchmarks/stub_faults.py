"""Which fault, if any, a request meets. Pure but for its own seeded generator: the caller passes the time.

A fault plan is latency plus an ordered list of rules; the first rule that matches a request decides it. A rule
without ids or modulo looks at the request alone; with them it matches when *any* record of the request matches, because
real servers fail the whole request when one of its records is poison.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from benchmarks.stub_counters import RecordId

ACTIONS = {
    "status": "answer `status` without running the model (429, 400, 422, 500, 503, …), with Retry-After when asked",
    "delay": "answer well, `delay_ms` later than the configured latency",
    "malformed": "answer 200 with JSON that ends in the middle",
    "missing": "answer 200 without the matching records",
    "unknown": "answer 200 with the matching records under ids nobody sent",
    "duplicate": "answer 200 with the matching records twice",
    "wrong_type": "answer 200 with text where the score (or vector) should be",
    "drip": "answer well, one byte every `seconds_per_byte`",
    "drop_before": "close the connection instead of running the model",
    "drop_after": "run the model, then close the connection without an answer",
    "drop_half": "run the model, write half the answer's body, then close the connection",
    "hang": "never answer",
}
UNPAID = frozenset({"status", "drop_before", "hang"})
OUTPUT_FAULTS = frozenset({"missing", "unknown", "duplicate", "wrong_type"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One fault and the requests it strikes. All conditions given must hold.

    Args:
        do: a key of ACTIONS.
        fraction: share of otherwise matching requests that are struck, 0 to 1, drawn from the seeded generator.
        ids: record ids that are struck; empty means any.
        modulo, remainder: strikes ids with id % modulo == remainder; 0 means no such condition.
        after_seconds, for_seconds: strikes in [after, after + for) seconds since the plan was set.
        times: strikes at most so many requests.
        times_per_id: strikes at most so often for any one record, so a retry succeeds.
        status, retry_after, retry_after_form: of `status`; Retry-After in seconds, sent as `seconds` or HTTP `date`.
        delay_ms: extra latency of `delay`, and the latency of `status`.
        seconds_per_byte: pace of `drip`.
    """

    do: str
    fraction: float = 1.0
    ids: frozenset[RecordId] = frozenset()
    modulo: int = 0
    remainder: int = 0
    after_seconds: float = 0.0
    for_seconds: float | None = None
    times: int | None = None
    times_per_id: int | None = None
    status: int = 500
    retry_after: float | None = None
    retry_after_form: str = "seconds"
    delay_ms: float = 0.0
    seconds_per_byte: float = 1.0

    def __post_init__(self) -> None:
        if self.do not in ACTIONS:
            raise ValueError(f"do must be one of {', '.join(ACTIONS)}, got {self.do!r}")
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"fraction must be between 0 and 1, got {self.fraction}")
        if self.retry_after_form not in ("seconds", "date"):
            raise ValueError(f"retry_after_form must be seconds or date, got {self.retry_after_form!r}")
        if not 300 <= self.status <= 599:
            raise ValueError(f"status must be between 300 and 599, got {self.status}")
        object.__setattr__(self, "ids", frozenset(self.ids))

    @property
    def names_records(self) -> bool:
        """Whether the rule selects records rather than requests."""
        return bool(self.ids or self.modulo)

    def hits(self, key: RecordId) -> bool:
        """Whether one record is selected; every record is when the rule names none."""
        if self.ids and key not in self.ids and str(key) not in self.ids:
            return False
        return not self.modulo or number_of(key) % self.modulo == self.remainder

    def open_at(self, elapsed: float) -> bool:
        """Whether the rule's time window contains `elapsed` seconds since the plan was set."""
        age = elapsed - self.after_seconds
        return age >= 0 and (self.for_seconds is None or age < self.for_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultPlan:
    """Latency and faults, replaced as a whole by POST /faults.

    Args:
        latency_ms: from the request having been read to its response being written.
        jitter_ms: uniform, plus or minus, on top.
        ready: what the readiness endpoints say.
        seed: of every random draw.
        rules: tried in order, first match wins.
    """

    latency_ms: float = 50.0
    jitter_ms: float = 0.0
    ready: bool = True
    seed: int = 1
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        if self.latency_ms < 0:
            raise ValueError(f"latency_ms must be at least 0, got {self.latency_ms}")
        if not 0 <= self.jitter_ms <= self.latency_ms:
            raise ValueError(f"jitter_ms must be between 0 and latency_ms, got {self.jitter_ms}")

    def changed(self, document: dict[str, Any]) -> FaultPlan:
        """This plan with the keys of `document`; `rules` are replaced, not merged. Raises ValueError on a bad key."""
        _known(document, FaultPlan)
        changes = dict(document)
        if "rules" in changes:
            changes["rules"] = tuple(_rule(item) for item in changes["rules"])
        return replace(self, **changes)

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        plain = asdict(self)
        plain["rules"] = [rule | {"ids": sorted(rule["ids"], key=str)} for rule in plain["rules"]]
        return plain


class FaultState:
    """A plan being played: the generator, and how often each rule has struck."""

    def __init__(self, plan: FaultPlan, now: float) -> None:
        self.plan = plan
        self._since = now
        self.random = random.Random(plan.seed)
        self.strikes = [0] * len(plan.rules)
        self._per_id: list[dict[RecordId, int]] = [{} for _ in plan.rules]

    def match(self, ids: Sequence[RecordId], now: float) -> Rule | None:
        """The first rule that strikes a request of these records at monotonic time `now`, counted as a strike."""
        for place, rule in enumerate(self.plan.rules):
            if self._strikes(place, rule, ids, now):
                self.strikes[place] += 1
                return rule
        return None

    def _strikes(self, place: int, rule: Rule, ids: Sequence[RecordId], now: float) -> bool:
        if not rule.open_at(now - self._since) or (rule.times is not None and self.strikes[place] >= rule.times):
            return False
        chosen = self._chosen(place, rule, ids)
        if chosen is not None and not chosen:
            return False
        if rule.fraction < 1 and self.random.random() >= rule.fraction:
            return False
        struck = self._per_id[place]
        for key in chosen or ():
            struck[key] = struck.get(key, 0) + 1
        return True

    def _chosen(self, place: int, rule: Rule, ids: Sequence[RecordId]) -> list[RecordId] | None:
        """The records the rule selects, or None when it looks at the request alone."""
        if not rule.names_records and rule.times_per_id is None:
            return None
        struck, limit = self._per_id[place], rule.times_per_id
        return [key for key in ids if rule.hits(key) and (limit is None or struck.get(key, 0) < limit)]


def number_of(key: RecordId) -> int:
    """A number for any record id: itself, the integer it spells, or a checksum of its text."""
    if isinstance(key, int):
        return key
    return int(key) if key.isdecimal() else zlib.crc32(key.encode())


def _rule(item: dict[str, Any]) -> Rule:
    _known(item, Rule)
    return Rule(**item)


def _known(document: dict[str, Any], kind: type) -> None:
    names = {field.name for field in fields(kind)}
    if unknown := sorted(set(document) - names):
        raise ValueError(f"keys must be among {', '.join(sorted(names))}, got {', '.join(unknown)}")
