"""What each role does at AWS, as its code does it: queues, folders, keys. Nothing here is for convenience.

``pyarrow`` looks before it reads or deletes (a HEAD, which S3 counts as GetObject), and after a deletion it puts the
folder's own empty object back. A missing object is told from a refused one only to whoever may list: so who reads may
list what it reads, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_ai.core.policies.roles import Kind, Role

REQUESTS, RESULTS, DEAD_LETTERS = "requests", "results", "dead_letters"
_URL = ("sqs:GetQueueUrl",)
SEND = (*_URL, "sqs:SendMessage")
CONSUME = (*_URL, "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage")
DEPTH = (*_URL, "sqs:GetQueueAttributes")


class Area(StrEnum):
    """A part of a folder that has readers and writers of its own."""

    PAYLOADS = "Payloads"
    RESULTS = "Results"
    PLANS = "Plans"  # of datasets whose rows are submitted as jobs
    CHECKPOINTS = "Checkpoints"
    INPUT = "Input"


class Use(StrEnum):
    """What is done with objects."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What one role may do.

    :param encrypts: purposes of data keys that it makes
    :param decrypts: purposes of data keys that it unwraps
    :param rewraps: whether it wraps data keys anew, of all purposes
    :param audits: whether it writes the audit; ``verifies``: whether it reads it
    """

    queues: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    storage: Mapping[Area, tuple[Use, ...]] = field(default_factory=dict)
    encrypts: tuple[str, ...] = ()
    decrypts: tuple[str, ...] = ()
    rewraps: bool = False
    audits: bool = False
    verifies: bool = False


HASH_KEY = "hash-key"
PURPOSES = (
    "checkpoint",
    "dead-letter",
    "good-answer",
    HASH_KEY,
    "job-payload",
    "job-result",
    "output",
)
"""What data keys are for; see ``adapters/crypto/wrapping.py``."""

_READ, _WRITE, _DELETE = (Use.READ,), (Use.WRITE,), (Use.DELETE,)
_BOTH = (Use.READ, Use.WRITE)
_AUDITOR = Rights(verifies=True)
RIGHTS: Mapping[tuple[Kind, Role], Rights] = {
    ("jobs", Role.SUBMITTER): Rights(
        queues={REQUESTS: SEND},
        storage={Area.PAYLOADS: _BOTH, Area.RESULTS: _READ, Area.PLANS: _BOTH},
        encrypts=("checkpoint", "job-payload"),
        decrypts=("checkpoint", HASH_KEY, "job-payload", "job-result"),
        audits=True,
    ),
    ("jobs", Role.WORKER): Rights(
        queues={REQUESTS: CONSUME, RESULTS: SEND, DEAD_LETTERS: SEND},
        storage={Area.PAYLOADS: _READ, Area.RESULTS: _WRITE},
        encrypts=("job-result",),
        decrypts=(HASH_KEY, "job-payload"),
        audits=True,
    ),
    ("jobs", Role.DISPATCHER): Rights(
        queues={
            REQUESTS: tuple(sorted({*SEND, *DEPTH})),
            RESULTS: CONSUME,
            DEAD_LETTERS: tuple(sorted({*CONSUME, *SEND})),
        },
        storage={Area.PAYLOADS: _DELETE, Area.RESULTS: _DELETE},
        encrypts=("dead-letter",),
        decrypts=(HASH_KEY,),
        audits=True,
    ),
    ("jobs", Role.OPERATOR): Rights(
        queues={REQUESTS: SEND, DEAD_LETTERS: tuple(sorted({*CONSUME, *DEPTH}))},
        encrypts=("dead-letter",),
        decrypts=("dead-letter", HASH_KEY),
        audits=True,
    ),
    ("jobs", Role.READER): Rights(queues=dict.fromkeys((REQUESTS, RESULTS, DEAD_LETTERS), DEPTH)),
    ("jobs", Role.AUDITOR): _AUDITOR,
    ("jobs", Role.ROTATOR): Rights(
        storage={Area.PAYLOADS: _BOTH, Area.RESULTS: _BOTH, Area.PLANS: _BOTH}, rewraps=True
    ),
    ("batch", Role.BATCH): Rights(
        storage={Area.CHECKPOINTS: (*_BOTH, Use.DELETE), Area.INPUT: _READ},
        encrypts=("checkpoint",),
        decrypts=("checkpoint", HASH_KEY),
        audits=True,
    ),
    ("batch", Role.READER): Rights(
        storage={Area.CHECKPOINTS: _READ, Area.INPUT: _READ}, decrypts=("checkpoint", HASH_KEY)
    ),
    ("batch", Role.AUDITOR): _AUDITOR,
    ("batch", Role.ROTATOR): Rights(storage={Area.CHECKPOINTS: (*_BOTH, Use.DELETE)}, rewraps=True),
    ("call", Role.CALLER): Rights(
        encrypts=("good-answer", "output"), decrypts=("good-answer", HASH_KEY, "output"), audits=True
    ),
    ("call", Role.AUDITOR): _AUDITOR,
    ("call", Role.ROTATOR): Rights(rewraps=True),
}
