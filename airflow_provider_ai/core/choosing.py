"""Needs in, a pattern out, with everything that was said for and against it. Pure: the tables are data, in
:mod:`airflow_provider_ai.core.choosing_rules` and :mod:`airflow_provider_ai.core.choosing_notes`.

There is always an answer. When needs contradict each other it is the least bad pattern, and ``conflicts`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_provider_ai.core.choosing_notes import CONFLICTS, NOTES
from airflow_provider_ai.core.choosing_rules import (
    ARGUMENTS,
    FITS,
    PATTERNS,
    RULES,
    SHORTEST_RUN,
    Argument,
    Condition,
    Pattern,
    Rule,
)
from airflow_provider_ai.core.needs import Needs, say_count, say_span

RECORDS_PER_SECOND = 1_200
"""Of one batch task on 2 cores against an endpoint that answers in 50 ms, 64 calls in flight (docs/performance.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """What was said about a pattern.

    :param verdict: ``decides`` for the first rule that held; ``for`` and ``against`` for all others
    :param rule: the name of a rule; None for an argument
    """

    pattern: Pattern
    verdict: Literal["decides", "for", "against"]
    text: str
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What must become true of the needs for a pattern to be the choice, and to fit."""

    pattern: Pattern
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The pattern to use, and why.

    :param rule: the rule that decided
    :param reasons: every rule and argument that held, the deciding one first
    :param conflicts: needs that this pattern does not meet, or that contradict each other; empty when all is well
    :param warnings: what must be there besides
    :param changes: one for each other pattern; before them one for the chosen pattern, if it does not fit
    """

    pattern: Pattern
    rule: str
    reasons: tuple[Reason, ...]
    conflicts: tuple[str, ...]
    warnings: tuple[str, ...]
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        body = asdict(self)
        body["changes"] = [
            {"pattern": change.pattern, "conditions": [condition.words for condition in change.conditions]}
            for change in self.changes
        ]
        return body


def choose(needs: Needs) -> Choice:
    """The pattern for these needs."""
    held = [rule for rule in RULES if rule.holds(needs)]  # the last one always does
    chosen = held[0].pattern
    objections = [argument for argument in ARGUMENTS if argument.objects_to(chosen) and argument.holds(needs)]
    return Choice(
        pattern=chosen,
        rule=held[0].name,
        reasons=tuple(_reasons(held, needs)),
        conflicts=(
            *(argument.text for argument in objections),
            *(conflict.text for conflict in CONFLICTS if conflict.holds(chosen, needs)),
        ),
        warnings=(
            *(note.text for note in NOTES if note.holds(chosen, needs)),
            *(_pace(needs) if chosen == "batch" else ()),
        ),
        changes=(*_mending(chosen, objections, needs), *_other_patterns(chosen, needs)),
    )


def _reasons(held: Sequence[Rule], needs: Needs) -> Iterator[Reason]:
    """The deciding rule, those it overruled, the arguments. A rule without conditions speaks only when it decides."""
    first, *others = held
    yield Reason(pattern=first.pattern, verdict="decides", text=first.because, rule=first.name)
    for rule in others:
        if rule.when:
            yield Reason(pattern=rule.pattern, verdict="for", text=rule.because, rule=rule.name)
    for argument in ARGUMENTS:
        if argument.holds(needs):
            yield Reason(pattern=argument.pattern, verdict=argument.verdict, text=argument.text)


def _missing(pattern: Pattern, needs: Needs) -> tuple[Condition, ...]:
    return tuple(condition for condition in FITS[pattern] if not condition.holds(needs))


def _mending(chosen: Pattern, objections: Sequence[Argument], needs: Needs) -> Iterator[Change]:
    """For the chosen pattern to fit: only what the objections are about."""
    about = {condition.boundary.need for argument in objections for condition in argument.when}
    conditions = tuple(condition for condition in _missing(chosen, needs) if condition.boundary.need in about)
    if conditions:
        yield Change(pattern=chosen, conditions=conditions)


def _other_patterns(chosen: Pattern, needs: Needs) -> Iterator[Change]:
    for pattern in PATTERNS:
        if pattern != chosen:
            yield Change(pattern=pattern, conditions=_missing(pattern, needs))


def _pace(needs: Needs) -> Iterator[str]:
    """How fast a run has to be. Answers wanted sooner than a run can be over are looked up: freshness is its time."""
    waited_for = needs.latency_seconds >= SHORTEST_RUN.value
    seconds = needs.latency_seconds if waited_for else needs.freshness_seconds
    pace = needs.volume / seconds
    if pace < 1:
        return
    what = f"{say_count(needs.volume)} records within {say_span(seconds)} are {say_count(pace)} a second"
    if pace <= RECORDS_PER_SECOND:
        yield f"Pace: {what}; one task has done {say_count(RECORDS_PER_SECOND)}, with an endpoint that takes 50 ms."
    else:
        yield (
            f"Pace: {what}, more than the {say_count(RECORDS_PER_SECOND)} that one task has done with an endpoint "
            "that takes 50 ms: several mapped tasks, larger micro-batches, and an endpoint that keeps up."
        )
