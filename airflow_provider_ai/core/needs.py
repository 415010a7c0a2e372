"""What is asked before a pattern is chosen: five questions, and how their answers are read.

One source for the flags and the prompts of ``airflow-ai choose`` and for docs/choosing-a-pattern.md. Times are seconds,
volumes are records at a time: what is waiting for an answer together, never a day's total of single requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from airflow_provider_ai.core.config import is_number, is_whole, require
from airflow_provider_ai.exceptions import SpecError

Effect = Literal["read", "ehr-write"]
EFFECTS: tuple[Effect, ...] = ("read", "ehr-write")

SHORTEST_SECONDS = 0.001
LONGEST_SECONDS = 3660 * 86_400.0
"""Ten years: a longer time is a slip of the keyboard."""
MOST_RECORDS = 10**12

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|d)?")
_COUNT = re.compile(r"\d{1,3}([,_ ]\d{3})+|\d+")
_YES, _NO = ("yes", "y", "true"), ("no", "n", "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What the answers are needed for.

    :param latency_seconds: from asking to having the answers, at the longest
    :param volume: records that are to be answered at a time
    :param freshness_seconds: how old the data behind an answer may be when the answer is used
    :param effect: ``read`` when an answer is shown or stored, ``ehr-write`` when it changes a health record
    :param phi: whether protected health information goes in or comes out
    """

    latency_seconds: float
    volume: int
    freshness_seconds: float
    effect: Effect
    phi: bool

    def __post_init__(self) -> None:
        for name in ("latency_seconds", "freshness_seconds"):
            seconds = getattr(self, name)
            fits = is_number(seconds) and SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS
            require(fits, f"{name} must be a time from 1 ms to ten years (seconds)", seconds)
        fits = is_whole(self.volume, 1) and self.volume <= MOST_RECORDS
        require(fits, f"volume must be a number of records from 1 to {MOST_RECORDS:,}", self.volume)
        require(self.effect in EFFECTS, f"effect must be one of {EFFECTS}", self.effect)
        require(isinstance(self.phi, bool), "phi must be true or false", self.phi)


# --- texts to values


def read_span(text: str) -> float:
    """``3``, ``3s``, ``90 min``, ``12h``, ``7d`` → seconds; SpecError for anything else."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise SpecError(f"a time must be seconds or have a unit (500ms, 3s, 15m, 12h, 7d), got {text!r}")
    seconds = float(found[1]) * _UNITS[found[2] or "s"]
    fits = SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS
    require(fits, "a time must be from 1 ms to ten years", text)
    return seconds


def read_count(text: str) -> int:
    """``1000000``, ``1,000,000`` → records; SpecError for anything else."""
    digits = text.strip()
    require(_COUNT.fullmatch(digits) is not None, "a volume must be a whole number of records", text)
    count = int(re.sub("[,_ ]", "", digits)[: len(str(MOST_RECORDS)) + 1])
    require(1 <= count <= MOST_RECORDS, f"a volume must be from 1 to {MOST_RECORDS:,} records", text)
    return count


def read_effect(text: str) -> Effect:
    """``read`` or ``ehr-write``; SpecError for anything else."""
    for effect in EFFECTS:
        if text.strip().lower() == effect:
            return effect
    raise SpecError(f"an effect must be {' or '.join(EFFECTS)}, got {text!r}")


def read_flag(text: str) -> bool:
    """``yes`` or ``no``; SpecError for anything else."""
    word = text.strip().lower()
    require(word in _YES + _NO, "the answer must be yes or no", text)
    return word in _YES


# --- values to texts


def say_span(seconds: float) -> str:
    """Seconds in the largest unit that needs no fraction: ``5 s``, ``12 h``, ``30 ms``. One day is ``24 h``."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    for unit, length, least in (("d", 86_400, 172_800), ("h", 3600, 3600), ("min", 60, 60)):
        if seconds >= least and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def say_count(records: float) -> str:
    """``1,024``."""
    return f"{records:,.0f}"


# --- the questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question.

    :param name: the field of :class:`Needs`
    :param flag: how a command line answers it
    :param metavar: what stands behind the flag; None for a switch
    :param text: as asked in a terminal
    :param help: what is meant, in a sentence or two
    :param answers: what may be answered, in words
    :param default: the answer to an empty line, as text
    :param read: makes a value of an answer, or raises SpecError
    """

    name: str
    flag: str
    metavar: str | None
    text: str
    help: str
    answers: str
    default: str
    read: Callable[[str], Any]


QUESTIONS: tuple[Question, ...] = (
    Question(
        name="latency_seconds",
        flag="--latency-seconds",
        metavar="SECONDS",
        text="How long may it take from asking to having the answer?",
        help="The budget of whoever waits, from end to end. When nobody waits: until the answers must be there.",
        answers="seconds, or a time such as 500ms, 3s, 15m, 6h",
        default="3",
        read=read_span,
    ),
    Question(
        name="volume",
        flag="--volume",
        metavar="RECORDS",
        text="How many records are to be answered at a time?",
        help="Those of one run, such as a night's; 1 when each is asked about on its own, however often that happens.",
        answers="a whole number of records, such as 1 or 250,000",
        default="1",
        read=read_count,
    ),
    Question(
        name="freshness_seconds",
        flag="--freshness",
        metavar="AGE",
        text="How old may the data behind an answer be when the answer is used?",
        help="A minute when the answer is about the patient as of now; a day when last night's answer does as well.",
        answers="seconds, or a time such as 30s, 15m, 24h, 7d",
        default="60",
        read=read_span,
    ),
    Question(
        name="effect",
        flag="--effect",
        metavar="read|ehr-write",
        text="What is done with an answer?",
        help="read: it is shown to a person or stored for reading. ehr-write: it changes a health record.",
        answers="read or ehr-write",
        default="read",
        read=read_effect,
    ),
    Question(
        name="phi",
        flag="--phi",
        metavar=None,
        text="Does protected health information (PHI) go in or come out?",
        help="Anything about a person who can be told from it. When in doubt: yes.",
        answers="yes or no",
        default="yes",
        read=read_flag,
    ),
)
