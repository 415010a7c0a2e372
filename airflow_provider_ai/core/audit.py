"""One event of the audit: who did what, to which records, with which model, for which purpose, how it ended, and when.

A record is named by its key alone: 16 bytes of keyed BLAKE2b over its id (:func:`.identity.record_key`), so nobody
without the key can tell, or guess, who it is. An event covers one record, or many of one operation (a roll-up): it then
holds how many they are and the SHA-256 of their keys, and the keys lie beside it, where that digest binds them.

``intended`` is on record before anything is done. An intention without an end means: assume that it was done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

KEY_BYTES = 16
KEYS_ELSEWHERE = "elsewhere"
"""Said by an event that holds no keys of its records: those of another event with the same digest are meant."""


class AuditAction(Enum):
    """What was done."""

    CHAIN_OPENED = "chain_opened"  # a writer begins its chain
    EVENTS_LOST = "events_lost"  # only with on_audit_failure = "continue": so many events could not be kept
    READ = "read"  # records, answers or replies were read
    INFER = "infer"  # records were sent to a model
    PUBLISH = "publish"  # outputs were written into a table
    QUARANTINE = "quarantine"  # records were given up
    SUBMIT = "submit"  # requests became jobs
    CLAIM = "claim"  # a worker began jobs
    RECEIVE = "receive"  # results arrived in the inbox
    CANCEL = "cancel"  # jobs were cancelled
    REDRIVE = "redrive"  # jobs of dead letters are done once more
    PURGE = "purge"  # dead letters were removed
    DEAD_LETTER = "dead_letter"  # messages were put aside
    SHOW = "show"  # somebody looked at dead letters
    WEBHOOK_REFUSED = "webhook_refused"  # a delivery that was not to be believed
    REPLY_UNKNOWN = "reply_unknown"  # a reply that belongs to no job
    DECRYPT = "decrypt"  # what was stored encrypted was read in clear
    ROTATE = "rotate"  # keys were wrapped anew


class AuditOutcome(Enum):
    """How it went."""

    INTENDED = "intended"  # it is about to be done
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who it was, as far as that is known.

    :param kind: ``airflow``, ``cli`` or ``service``
    :param role: ``submitter``, ``worker``, ``dispatcher``, ``reader`` or ``operator`` (a person at the command line)
    :param user: who started it: the user that triggered the run, or of the process
    """

    kind: str
    role: str
    user: str | None = None
    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None

    def facts(self) -> dict[str, Any]:
        """What is known, as plain JSON."""
        return known({name: getattr(self, name) for name in self.__slots__})


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a chain: the event with this number, and its hash."""

    writer: str
    sequence: int
    hash: bytes

    def facts(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"writer": self.writer, "sequence": self.sequence, "hash": self.hash.hex()}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One event; see the module.

    :param at_us: microseconds since the epoch (UTC)
    :param keys: of its records, 16 bytes each, one after the other; empty where only their number and digest are known
    :param records: how many it covers
    :param digest: 64 hex digits of SHA-256 over the keys; empty without records
    :param purpose: purpose of use, such as HL7's ``TREAT`` or ``HOPERAT``
    :param prompt_hash: of everything that shapes a request
    :param reference: an opaque name: a job, a submission, a partition of a plan, an endpoint
    :param reason: one word
    :param previous: the chain before this one, where a chain is opened and that is known
    """

    action: AuditAction
    outcome: AuditOutcome
    actor: Actor
    at_us: int
    keys: bytes = field(default=b"", repr=False)
    records: int = 0
    digest: str = ""
    purpose: str | None = None
    model: str | None = None
    prompt_hash: str | None = None
    reference: str | None = None
    reason: str | None = None
    previous: Position | None = None

    def facts(self) -> dict[str, Any]:
        """What the chain binds beside number, time and records; plain JSON, absent things left out."""
        return known(
            {
                "action": self.action.value,
                "outcome": self.outcome.value,
                "actor": self.actor.facts(),
                "purpose": self.purpose,
                "model": self.model,
                "prompt_hash": self.prompt_hash,
                "reference": self.reference,
                "reason": self.reason,
                "previous": None if self.previous is None else self.previous.facts(),
                "keys": KEYS_ELSEWHERE if self.records and not self.keys else None,
            }
        )


def packed_keys(keys: Iterable[str]) -> bytes:
    """Record keys (32 hex digits each) as the bytes that an event holds."""
    return bytes.fromhex("".join(keys))


def digest_of(keys: bytes) -> str:
    """What binds packed keys to their event."""
    return hashlib.sha256(keys).hexdigest() if keys else ""


def known(facts: dict[str, Any]) -> dict[str, Any]:
    """What is not None."""
    return {name: value for name, value in facts.items() if value is not None}
