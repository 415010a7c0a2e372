"""The decision table: boundaries, rules, arguments and conditions, all as data. Words and checks come from one place.

The first rule that holds decides. Effect and PHI never change the pattern: they say what else must be there. Arguments
that speak against the pattern that was chosen all the same are its conflicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from airflow_provider_ai.core.call_settings import FLOOR_SECONDS, LONGEST_DEADLINE_SECONDS
from airflow_provider_ai.core.needs import Needs, say_count, say_span

Pattern = Literal["sync", "async", "batch"]
PATTERNS: tuple[Pattern, ...] = ("sync", "async", "batch")
TITLES: dict[Pattern, str] = {"sync": "synchronous call", "async": "asynchronous request", "batch": "batch run"}
MEANINGS: dict[Pattern, str] = {
    "sync": "The caller waits, 5 s at most, and gets the model's answer or a fallback that says it is one.",
    "async": "A request goes through a queue to a worker; the task sleeps until the result with its job_id is there.",
    "batch": "A scheduled run takes a whole dataset through the model, with checkpoints, into a table.",
}


@dataclass(frozen=True, slots=True)
class Boundary:
    """A number that decides, and why it is this one.

    :param need: the field of :class:`Needs` it bounds
    """

    need: str
    value: float
    why: str

    @property
    def words(self) -> str:
        """The value with its unit."""
        return say_count(self.value) if self.need == "volume" else say_span(self.value)


SHORTEST_CALL = Boundary(
    "latency_seconds",
    FLOOR_SECONDS,
    "A synchronous call keeps this much of its deadline free for handing out the static answer. With less, there is no "
    "time left for the model.",
)
LONGEST_CALL = Boundary(
    "latency_seconds",
    LONGEST_DEADLINE_SECONDS,
    "The longest deadline of a synchronous call. Who waits holds a worker slot, a connection and often a person; a "
    "longer deadline is refused when the DAG is parsed.",
)
SHORTEST_RUN = Boundary(
    "latency_seconds",
    60.0,
    "A batch run is four tasks, each scheduled by Airflow at 0.5 to 2 s, and one transaction per partition. Nobody "
    "should count on less than a minute.",
)
LONGEST_JOB = Boundary(
    "latency_seconds",
    12 * 3600.0,
    "SQS hides a message that is being worked on for 12 h at most. What has more time than that has time for a "
    "scheduled run.",
)
RECORDS_PER_CALL = Boundary(
    "volume",
    64,
    "What one call carries: a micro-batch of the size the batch pattern uses too. A call fails, and falls back, as a "
    "whole; beyond this too many records share one fate.",
)
WAITING_TASKS = Boundary(
    "volume",
    1024,
    "Each asynchronous request has a task that waits for it, and Airflow maps a task 1,024 times at most "
    "(`max_map_length`).",
)
AHEAD = Boundary(
    "freshness_seconds",
    3600.0,
    "A run, with retries that wait minutes, must be over before the next one starts. Hourly is safe for most datasets, "
    "every few minutes is not: a judgement, to be checked against how long your run takes.",
)
BOUNDARIES = (SHORTEST_CALL, LONGEST_CALL, SHORTEST_RUN, LONGEST_JOB, RECORDS_PER_CALL, WAITING_TASKS, AHEAD)

NEED_WORDS = {"latency_seconds": "latency", "volume": "volume", "freshness_seconds": "freshness"}
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "≤": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
    "≥": lambda value, bound: value >= bound,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a need with a boundary."""

    sign: Literal["≤", ">", "<", "≥"]
    boundary: Boundary

    def holds(self, needs: Needs) -> bool:
        """Whether it is so."""
        return _HOLDS[self.sign](getattr(needs, self.boundary.need), self.boundary.value)

    @property
    def words(self) -> str:
        """``latency ≤ 5 s``."""
        return f"{NEED_WORDS[self.boundary.need]} {self.sign} {self.boundary.words}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A row of the decision table: when all conditions hold, this pattern, because."""

    name: str
    pattern: Pattern
    when: tuple[Condition, ...]
    because: str

    def holds(self, needs: Needs) -> bool:
        """Whether all its conditions do."""
        return all(condition.holds(needs) for condition in self.when)

    @property
    def words(self) -> str:
        """The conditions in words; ``otherwise`` when there are none."""
        return ", ".join(condition.words for condition in self.when) or "otherwise"


RULES = (
    Rule(
        "no-call-is-that-fast",
        "batch",
        (Condition("≤", SHORTEST_CALL),),
        "No call is that fast: the answer has to lie ready when it is asked for. Compute ahead, look it up.",
    ),
    Rule(
        "somebody-waits",
        "sync",
        (Condition("≤", LONGEST_CALL), Condition("≤", RECORDS_PER_CALL)),
        "Somebody waits for this answer: one call with a hard deadline, and a fallback for when the model does not "
        "keep it.",
    ),
    Rule(
        "computed-ahead",
        "batch",
        (Condition(">", RECORDS_PER_CALL), Condition("≥", AHEAD)),
        "Many records, and their answers may be an hour old or more: one scheduled run computes them all, pays for "
        "each once, and whoever needs an answer looks it up.",
    ),
    Rule(
        "too-many-to-wait-for",
        "batch",
        (Condition(">", WAITING_TASKS),),
        "More records at a time than Airflow can wait for one by one: partitions, many calls in flight in each, and "
        "checkpoints, so that a crash pays for nothing twice.",
    ),
    Rule(
        "nothing-is-in-time",
        "async",
        (Condition("≤", LONGEST_CALL), Condition(">", RECORDS_PER_CALL)),
        "Too many for one call, too fresh to compute ahead: nothing answers all of them in time. Through a queue each "
        "has its answer as soon as it is ready.",
    ),
    Rule(
        "nobody-waits",
        "batch",
        (Condition(">", LONGEST_JOB), Condition("≥", AHEAD)),
        "Nobody waits for it: the next scheduled run is early enough, and needs no queue and no worker that is always "
        "on.",
    ),
    Rule(
        "worth-a-queue",
        "async",
        (),
        "Each request wants its own answer, soon, but later than a caller can be held: a queue takes it, a worker "
        "takes its time, and the task waits without a worker slot.",
    ),
)


@dataclass(frozen=True, slots=True)
class Argument:
    """What speaks for or against a pattern besides the rules."""

    verdict: Literal["for", "against"]
    pattern: Pattern
    when: tuple[Condition, ...]
    text: str

    def holds(self, needs: Needs) -> bool:
        """Whether it is to be heard."""
        return all(condition.holds(needs) for condition in self.when)

    def objects_to(self, pattern: Pattern) -> bool:
        """Whether it speaks against this pattern."""
        return self.verdict == "against" and self.pattern == pattern


def _against(pattern: Pattern, *when: Condition, because: str) -> Argument:
    return Argument("against", pattern, when, because)


def _for(pattern: Pattern, *when: Condition, because: str) -> Argument:
    return Argument("for", pattern, when, because)


ARGUMENTS = (
    _against(
        "sync",
        Condition("≤", SHORTEST_CALL),
        because="every answer would be the fallback: there is no time for the model within the deadline",
    ),
    _against(
        "sync",
        Condition(">", LONGEST_CALL),
        because="a job that may take longer than 5 s must not hold its caller, nor a connection",
    ),
    _against(
        "sync",
        Condition(">", RECORDS_PER_CALL),
        because="one call cannot carry so many records, and would replace them all by the fallback at once",
    ),
    _against(
        "async",
        Condition("≤", LONGEST_CALL),
        because="a queue and a worker promise an answer, not one within 5 s, and there is no fallback in between",
    ),
    _against(
        "async",
        Condition(">", RECORDS_PER_CALL),
        Condition("≥", AHEAD),
        because="a message, a waiting task and a result for each record, where one run would do",
    ),
    _against(
        "async",
        Condition(">", WAITING_TASKS),
        because="a task would have to wait for each record, and Airflow maps no more than 1,024",
    ),
    _against(
        "async",
        Condition(">", LONGEST_JOB),
        Condition("≥", AHEAD),
        because="a queue and a worker that is always on, for something nobody waits for",
    ),
    _against(
        "batch",
        Condition("<", AHEAD),
        because="a scheduled run answers with the data it found when it started, and runs closer than an hour get in "
        "each other's way",
    ),
    _against(
        "batch",
        Condition("≤", SHORTEST_RUN),
        Condition("<", AHEAD),
        because="a run takes a minute at least, and answers about data this fresh cannot be computed ahead",
    ),
    _against(
        "batch",
        Condition(">", SHORTEST_CALL),
        Condition("≤", LONGEST_JOB),
        Condition("≤", RECORDS_PER_CALL),
        because="a plan, partitions and a publication for a handful of records, which then wait for the next run",
    ),
    _for(
        "batch",
        Condition("≥", AHEAD),
        because="answers may be an hour old or more: when it is known beforehand who will be asked about, computing "
        "them ahead is cheaper than any call and never late",
    ),
    _for(
        "batch",
        Condition(">", RECORDS_PER_CALL),
        Condition("≤", WAITING_TASKS),
        because="many records at a time: one run with checkpoints instead of one request each",
    ),
)

FITS: dict[Pattern, tuple[Condition, ...]] = {
    "sync": (Condition(">", SHORTEST_CALL), Condition("≤", LONGEST_CALL), Condition("≤", RECORDS_PER_CALL)),
    "async": (Condition(">", LONGEST_CALL), Condition("≤", LONGEST_JOB), Condition("≤", RECORDS_PER_CALL)),
    "batch": (Condition(">", RECORDS_PER_CALL), Condition("≥", AHEAD)),
}
"""Needs of which each pattern is the choice, whatever else is asked: what to change in order to get it."""
