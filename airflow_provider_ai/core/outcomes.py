"""What became of records, and how that is written into a checkpoint log. One frame holds the outcomes of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from airflow_provider_ai.core.ports import Usage

OUTPUT_PREFIX = "out:"  # of output columns in sealed segments, so that none can collide with the segment's own
_NO_USAGE = Usage()


@dataclass(slots=True, kw_only=True)
class Succeeded:
    """Records of one call that have a valid output. All sequences have the same length.

    Not to be changed; not frozen, because that makes it four times as slow to create, and there is one per call.

    :param rows: row numbers in the partition
    :param keys: opaque record keys
    :param inferred_at: microseconds since the epoch, UTC
    :param attempts: calls these records took part in
    :param usage: of the whole call
    """

    rows: Sequence[int]
    keys: Sequence[str]
    ids: Sequence[Any]
    outputs: Sequence[dict[str, Any]]
    inferred_at: int
    attempts: int = 1
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A record that will not be called again in this round.

    :param error_class: a word such as ``rejected``, ``timeout``, ``invalid_output:missing_output``; never data
    :param status: last HTTP status; None when there was no answer
    :param round: the round (``retry_failed`` opens a new one) it was given up in
    """

    row: int
    key: str
    error_class: str
    status: int | None
    attempts: int
    round: int
    quarantined_at: int


Outcome = Succeeded | Quarantined


def encode_outcome(outcome: Outcome) -> bytes:
    """The payload of a frame."""
    if isinstance(outcome, Succeeded):
        usage = outcome.usage
        body: dict[str, Any] = {
            "r": outcome.rows,
            "k": outcome.keys,
            "i": outcome.ids,
            "o": outcome.outputs,
            "t": outcome.inferred_at,
            "n": outcome.attempts,
            "u": (usage.prompt_tokens, usage.completion_tokens),
        }
    else:
        body = {
            "q": outcome.row,
            "k": outcome.key,
            "e": outcome.error_class,
            "s": outcome.status,
            "n": outcome.attempts,
            "g": outcome.round,
            "t": outcome.quarantined_at,
        }
    return orjson.dumps(body, default=_plain)


def decode_outcome(payload: bytes) -> Outcome:
    """The inverse of :func:`encode_outcome`."""
    body = orjson.loads(payload)
    if "q" in body:
        return Quarantined(
            row=body["q"],
            key=body["k"],
            error_class=body["e"],
            status=body["s"],
            attempts=body["n"],
            round=body["g"],
            quarantined_at=body["t"],
        )
    prompt, completion = body["u"]
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion) if prompt or completion else _NO_USAGE
    return Succeeded(
        rows=body["r"],
        keys=body["k"],
        ids=body["i"],
        outputs=body["o"],
        inferred_at=body["t"],
        attempts=body["n"],
        usage=usage,
    )


def _plain(value: object) -> object:
    """Ids that JSON does not know: bytes as hex, everything else (Decimal, Duration, …) as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
