"""What must be there besides the pattern: warnings, and conflicts between needs. Data, read in order.

A note says only what this version does. What comes later is named as coming later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from airflow_provider_ai.core.choosing_rules import PATTERNS, Pattern
from airflow_provider_ai.core.needs import Effect, Needs


@dataclass(frozen=True, slots=True)
class Note:
    """A warning, for these patterns and needs.

    :param effect: only for this effect; None for any
    :param phi: only with protected health information
    """

    text: str
    patterns: tuple[Pattern, ...] = PATTERNS
    effect: Effect | None = None
    phi: bool = False

    def holds(self, pattern: Pattern, needs: Needs) -> bool:
        """Whether it applies."""
        return pattern in self.patterns and self.effect in (None, needs.effect) and (needs.phi or not self.phi)


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two needs that cannot both be met, or a need that the pattern can only half meet."""

    text: str
    holds: Callable[[Pattern, Needs], bool]


CONFLICTS = (
    Conflict(
        "an answer may take longer (latency) than its data may be old when it is used (freshness): store the time of "
        "the data with each answer, and let its reader refuse what is too old",
        lambda pattern, needs: needs.latency_seconds > needs.freshness_seconds,
    ),
    Conflict(
        "a synchronous call may answer with a fallback, and a fallback must never be written into a health record: "
        "write only what is not degraded, in a task of its own after the call, and send the rest to a person. If the "
        "write can wait longer than 5 s, an asynchronous request has no fallback that could be written by mistake",
        lambda pattern, needs: pattern == "sync" and needs.effect == "ehr-write",
    ),
)

_SYNC: tuple[Pattern, ...] = ("sync",)
_ASYNC: tuple[Pattern, ...] = ("async",)
_BATCH: tuple[Pattern, ...] = ("batch",)

NOTES = (
    Note("The model's p99 must be well below the deadline; otherwise most of what is answered is the fallback.", _SYNC),
    Note(
        "The deadline begins when the task does, and Airflow takes 0.5 to 2 s to start one. Where a person waits, call "
        "SyncCaller from the web service itself, which needs no Airflow; the DAG is for pipelines.",
        _SYNC,
    ),
    Note("Agree on the static answer with those who act on it, and look at `degraded` before you act.", _SYNC),
    Note(
        "Somebody must run the workers (`airflow-ai worker`), as many as the longest backlog takes, and look after "
        "dead letters: what has failed for good waits there for a person (DAG dead_letter_redrive).",
        _ASYNC,
    ),
    Note("A result can be delivered more than once: who receives it must be idempotent on job_id.", _ASYNC),
    Note("Decide who looks at quarantined records, and which share of them stops a run.", _BATCH),
    Note("Who looks an answer up must know what to do when there is none yet.", _BATCH),
    Note(
        "EHR write: the receiver must be idempotent. Key each write by something that a retry does not change (FHIR: "
        "an identifier, and a conditional create), so that writing twice has one effect.",
        effect="ehr-write",
    ),
    Note(
        "EHR write: degraded answers go to a human-review path (AIDegradedBranchOperator), never to the record.",
        _SYNC,
        effect="ehr-write",
    ),
    Note(
        "EHR write: this version publishes to SQL tables. The write is a task of your own after the publication, keyed "
        "by `_record_key`; quarantined records go to a human-review path.",
        _BATCH,
        effect="ehr-write",
    ),
    Note(
        "EHR write: a failed or expired request goes to a human-review path.",
        _ASYNC,
        effect="ehr-write",
    ),
    Note(
        "EHR write: mark what an AI wrote as such, with model and time, and let a person sign it.", effect="ehr-write"
    ),
    Note(
        "PHI: https with verify_tls for every endpoint, those of fallbacks included, and sslmode=verify-full for "
        "PostgreSQL (`require` accepts anybody's certificate).",
        phi=True,
    ),
    Note(
        "PHI: a contract that covers it with whoever runs a model (HIPAA: business associate agreement; GDPR: "
        "Article 28), those of fallbacks included.",
        phi=True,
    ),
    Note(
        "PHI: nothing about a person in params, dag_run.conf or templates: Airflow stores them readably. Hand over a "
        "reference, and read the record inside the task, as the skeleton does.",
        ("sync", "async"),
        phi=True,
    ),
    Note(
        "PHI: an answer stands in XCom, and so in Airflow's database: let it be a code rather than text, and encrypt "
        "that database's volume.",
        _SYNC,
        phi=True,
    ),
    Note(
        "PHI: `LastGood` keeps answers in the store: an encrypted volume, or leave that link out.",
        _SYNC,
        phi=True,
    ),
    Note(
        "PHI: payloads stay out of messages (Claim Check); queue and bucket encrypted with a key of yours; the dead "
        "letter queue holds references that are as sensitive as the payloads.",
        _ASYNC,
        phi=True,
    ),
    Note(
        "PHI: checkpoints hold answers as they are, until encryption arrives with the PHI release: an encrypted volume "
        "or bucket, and delete what is no longer needed.",
        _BATCH,
        phi=True,
    ),
    Note(
        "PHI: this version writes no audit log of its own: switch on that of the endpoint, the warehouse and the "
        "bucket. Give each DAG connections of its own, with no more rights than it needs.",
        phi=True,
    ),
)
