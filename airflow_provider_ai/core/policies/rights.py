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
from airflow_provider_ai.core.purposes import (
    CHECKPOINT,
    DEAD_LETTER,
    GOOD_ANSWER,
    HASH_KEY,
    JOB_PAYLOAD,
    JOB_RESULT,
    OUTPUT,
    PURPOSES,
    TEST,
)

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
    CLAIMS = "ClaimChecks"  # all of these
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


STORED = tuple(purpose for purpose in PURPOSES if purpose != TEST)
"""Purposes of what is kept, and so of what is wrapped anew."""

_READ, _WRITE, _DELETE = (Use.READ,), (Use.WRITE,), (Use.DELETE,)
_BOTH = (Use.READ, Use.WRITE)
_AUDITOR = Rights(verifies=True)
RIGHTS: Mapping[tuple[Kind, Role], Rights] = {
    ("jobs", Role.SUBMITTER): Rights(
        queues={REQUESTS: SEND},
        storage={Area.PAYLOADS: _BOTH, Area.RESULTS: _READ, Area.PLANS: _BOTH},
        encrypts=(CHECKPOINT, JOB_PAYLOAD),
        decrypts=(CHECKPOINT, HASH_KEY, JOB_PAYLOAD, JOB_RESULT),
        audits=True,
    ),
    ("jobs", Role.WORKER): Rights(
        queues={REQUESTS: CONSUME, RESULTS: SEND, DEAD_LETTERS: SEND},
        storage={Area.PAYLOADS: _READ, Area.RESULTS: _WRITE},
        encrypts=(JOB_RESULT,),
        decrypts=(HASH_KEY, JOB_PAYLOAD),
        audits=True,
    ),
    ("jobs", Role.DISPATCHER): Rights(
        queues={
            REQUESTS: tuple(sorted({*SEND, *DEPTH})),
            RESULTS: CONSUME,
            DEAD_LETTERS: tuple(sorted({*CONSUME, *SEND})),
        },
        storage={Area.PAYLOADS: _DELETE, Area.RESULTS: _DELETE},
        encrypts=(DEAD_LETTER,),
        decrypts=(HASH_KEY,),
        audits=True,
    ),
    ("jobs", Role.OPERATOR): Rights(
        queues={REQUESTS: SEND, DEAD_LETTERS: tuple(sorted({*CONSUME, *DEPTH}))},
        encrypts=(DEAD_LETTER,),
        decrypts=(DEAD_LETTER, HASH_KEY),
        audits=True,
    ),
    ("jobs", Role.READER): Rights(queues=dict.fromkeys((REQUESTS, RESULTS, DEAD_LETTERS), DEPTH)),
    ("jobs", Role.AUDITOR): _AUDITOR,
    ("jobs", Role.ROTATOR): Rights(storage={Area.CLAIMS: _BOTH}, rewraps=True),
    ("batch", Role.BATCH): Rights(
        storage={Area.CHECKPOINTS: (*_BOTH, Use.DELETE), Area.INPUT: _READ},
        encrypts=(CHECKPOINT,),
        decrypts=(CHECKPOINT, HASH_KEY),
        audits=True,
    ),
    ("batch", Role.READER): Rights(
        storage={Area.CHECKPOINTS: _READ, Area.INPUT: _READ}, decrypts=(CHECKPOINT, HASH_KEY)
    ),
    ("batch", Role.AUDITOR): _AUDITOR,
    ("batch", Role.ROTATOR): Rights(storage={Area.CHECKPOINTS: (*_BOTH, Use.DELETE)}, rewraps=True),
    ("call", Role.CALLER): Rights(
        encrypts=(GOOD_ANSWER, OUTPUT), decrypts=(GOOD_ANSWER, HASH_KEY, OUTPUT), audits=True
    ),
    ("call", Role.AUDITOR): _AUDITOR,
    ("call", Role.ROTATOR): Rights(rewraps=True),
}
