"""Which pattern for which needs, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core.call_settings import FLOOR_SECONDS, LONGEST_DEADLINE_SECONDS, check_deadline
from airflow_provider_ai.core.choosing import choose
from airflow_provider_ai.core.choosing_notes import CONFLICTS, NOTES
from airflow_provider_ai.core.choosing_rules import (
    ARGUMENTS,
    BOUNDARIES,
    FITS,
    PATTERNS,
    RULES,
    Condition,
    Pattern,
)
from airflow_provider_ai.core.needs import LONGEST_SECONDS, MOST_RECORDS, SHORTEST_SECONDS, Needs
from airflow_provider_ai.exceptions import SpecError

MINUTE, HOUR, DAY = 60, 3600, 86_400

# Around every boundary, and anywhere.
LATENCIES = (0.001, 0.03, 0.031, 1, 3, 5, 5.001, 30, 60, 61, 600, HOUR, 12 * HOUR, 12 * HOUR + 1, 30 * DAY)
VOLUMES = (1, 2, 64, 65, 500, 1024, 1025, 10**6, MOST_RECORDS)
AGES = (0.001, 1, 60, 600, HOUR - 1, HOUR, DAY, 30 * DAY)
TIMES = st.floats(SHORTEST_SECONDS, LONGEST_SECONDS)
ANY_NEEDS = st.builds(
    Needs,
    latency_seconds=st.sampled_from(LATENCIES) | TIMES,
    volume=st.sampled_from(VOLUMES) | st.integers(1, MOST_RECORDS),
    freshness_seconds=st.sampled_from(AGES) | TIMES,
    effect=st.sampled_from(["read", "ehr-write"]),
    phi=st.booleans(),
)


def needs(latency: float, volume: int, freshness: float, **others: Any) -> Needs:
    return Needs(
        **{"effect": "read", "phi": False, **others},
        latency_seconds=latency,
        volume=volume,
        freshness_seconds=freshness,
    )


@pytest.mark.parametrize(
    ("latency", "volume", "freshness", "pattern", "rule"),
    [
        (3, 1, MINUTE, "sync", "somebody-waits"),  # ICU triage
        (5, 1, MINUTE, "sync", "somebody-waits"),  # the longest deadline there is
        (5.001, 1, MINUTE, "async", "worth-a-queue"),  # which a call would refuse
        (0.031, 1, MINUTE, "sync", "somebody-waits"),  # the shortest deadline there is
        (0.03, 1, MINUTE, "batch", "no-call-is-that-fast"),  # which a call would refuse
        (0.01, 10**6, DAY, "batch", "no-call-is-that-fast"),  # a look-up, of what a night has computed
        (3, 64, MINUTE, "sync", "somebody-waits"),  # a ward, in one call
        (3, 65, MINUTE, "async", "nothing-is-in-time"),  # one bed more: two calls
        (3, 65, DAY, "batch", "computed-ahead"),  # unless yesterday's answers do
        (3, 1, DAY, "sync", "somebody-waits"),  # a single one is asked for, though an old answer would do
        (600, 1, HOUR, "async", "worth-a-queue"),  # a discharge letter
        (12 * HOUR, 1, DAY, "async", "worth-a-queue"),  # as long as a queue can hide a message
        (12 * HOUR + 1, 1, DAY, "batch", "nobody-waits"),  # tonight is early enough
        (30 * DAY, 1, MINUTE, "async", "worth-a-queue"),  # but not for data of this minute
        (600, 1024, MINUTE, "async", "worth-a-queue"),  # as many tasks as can wait
        (600, 1025, MINUTE, "batch", "too-many-to-wait-for"),
        (600, 65, HOUR, "batch", "computed-ahead"),  # many, and hourly is enough
        (600, 65, HOUR - 1, "async", "worth-a-queue"),  # many, and hourly is not
        (600, 64, HOUR, "async", "worth-a-queue"),  # few
        (6 * HOUR, 250_000, DAY, "batch", "computed-ahead"),  # nightly risk scores
        (1, 10**6, DAY, "batch", "computed-ahead"),  # nightly too: looked up within a second
        (1, 10**6, 1, "batch", "too-many-to-wait-for"),  # impossible; see the conflicts
    ],
)
def test_the_pattern(latency: float, volume: int, freshness: float, pattern: Pattern, rule: str) -> None:
    """One row per case that someone has, and per side of each boundary."""
    choice = choose(needs(latency, volume, freshness))
    assert (choice.pattern, choice.rule) == (pattern, rule)


@pytest.mark.parametrize(
    ("needed", "pattern", "words"),
    [
        # An answer in 1 s for 1,000,000 records: no run is over in a second.
        (needs(1, 10**6, 1), "batch", ["a run takes a minute at least", "a scheduled run answers with the data"]),
        # An answer in 3 s for 500: a queue promises no time.
        (needs(3, 500, 60), "async", ["promise an answer, not one within 5 s"]),
        # Faster than any call, about data that changes: there is nothing to look up.
        (needs(0.01, 1, 1), "batch", ["answers about data this fresh cannot be computed ahead"]),
        # Freshness of seconds, latency of hours: old on arrival.
        (needs(2 * HOUR, 1, 10), "async", ["may take longer (latency) than its data may be old"]),
        # The same for many.
        (needs(2 * HOUR, 10**6, HOUR), "batch", ["may take longer (latency) than its data may be old"]),
        # A write into the record, from a call that may fall back.
        (needs(3, 1, 60, effect="ehr-write"), "sync", ["a fallback must never be written into a health record"]),
    ],
)
def test_contradicting_needs_get_the_least_bad_pattern_and_the_reason(
    needed: Needs, pattern: Pattern, words: list[str]
) -> None:
    """One row per contradiction."""
    choice = choose(needed)
    assert choice.pattern == pattern
    assert [word for word in words if not any(word in conflict for conflict in choice.conflicts)] == []


@pytest.mark.parametrize(
    "needed",
    [
        needs(3, 1, 60),
        needs(3, 1, DAY, phi=True),
        needs(600, 1, HOUR, effect="ehr-write"),  # a queue has no fallback that could be written
        needs(6 * HOUR, 250_000, DAY, effect="ehr-write", phi=True),
        needs(1, 10**6, DAY),  # looked up, so nothing contradicts it
        needs(0.01, 1, DAY),
        needs(30 * DAY, 1, 30 * DAY),
    ],
)
def test_needs_that_agree_have_no_conflict(needed: Needs) -> None:
    """A warning that is always there warns of nothing."""
    assert choose(needed).conflicts == ()


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        (needs(3, 1, 60), ["SyncCaller", "p99", "static answer"]),
        (needs(600, 1, HOUR), ["must run the workers", "idempotent on job_id"]),
        (needs(6 * HOUR, 10**6, DAY), ["quarantined", "46 a second"]),
        (needs(3, 1, 60, effect="ehr-write"), ["must be idempotent", "human-review path"]),
        (needs(600, 1, HOUR, effect="ehr-write"), ["must be idempotent", "human-review path"]),
        (needs(6 * HOUR, 10**6, DAY, effect="ehr-write"), ["must be idempotent", "_record_key", "human-review path"]),
        (needs(3, 1, 60, phi=True), ["https", "verify-full", "dag_run.conf", "XCom", "LastGood", "audit"]),
        (needs(600, 1, HOUR, phi=True), ["https", "dag_run.conf", "Claim Check", "audit"]),
        (needs(6 * HOUR, 10**6, DAY, phi=True), ["https", "checkpoints", "audit"]),
        (needs(60, 10**6, 60), ["16,667 a second, more than the 1,200"]),  # more than one task makes
        (needs(1, 10**6, DAY), ["1,000,000 records within 24 h are 12 a second"]),  # looked up: the run has a day
    ],
)
def test_warnings(needed: Needs, words: list[str]) -> None:
    """One row per pattern, effect, PHI and pace."""
    warnings = "\n".join(choose(needed).warnings)
    assert [word for word in words if word not in warnings] == []


def test_nothing_is_said_of_health_records_and_phi_where_there_are_none() -> None:
    """They would be read past where they matter."""
    for latency, volume in ((3, 1), (600, 1), (6 * HOUR, 10**6)):
        warnings = choose(needs(latency, volume, DAY)).warnings
        assert [text for text in warnings if "PHI" in text or "EHR" in text] == []


def test_a_slow_run_needs_no_word_about_its_pace() -> None:
    """Below one record a second there is nothing to plan for."""
    assert "Pace" not in "".join(choose(needs(6 * HOUR, 1000, DAY)).warnings)


@given(ANY_NEEDS)
def test_there_is_always_a_pattern_with_a_reason_and_a_reason_against_each_other_one(needed: Needs) -> None:
    """Whatever is asked for, also when it cannot be had."""
    choice = choose(needed)
    deciding = [reason for reason in choice.reasons if reason.verdict == "decides"]
    assert [(reason.pattern, reason.rule) for reason in deciding] == [(choice.pattern, choice.rule)]
    against = {reason.pattern for reason in choice.reasons if reason.verdict == "against"}
    assert against >= set(PATTERNS) - {choice.pattern}
    assert json.loads(json.dumps(choice.to_dict()))["pattern"] == choice.pattern


@given(ANY_NEEDS)
def test_every_synchronous_call_has_a_deadline_the_product_accepts(needed: Needs) -> None:
    """The table and the operator have one boundary."""
    if choose(needed).pattern == "sync":
        check_deadline(needed.latency_seconds)


@given(ANY_NEEDS)
def test_effect_and_phi_do_not_change_the_pattern(needed: Needs) -> None:
    """They say what else must be there."""
    other = replace(needed, effect="read" if needed.effect == "ehr-write" else "ehr-write", phi=not needed.phi)
    assert choose(other).pattern == choose(needed).pattern


def _satisfied(needed: Needs, conditions: tuple[Condition, ...]) -> Needs:
    """The needs, moved just over each boundary."""
    for condition in conditions:
        bound = condition.boundary
        step = 1 if bound.need == "volume" else 0.001
        value = bound.value + {">": step, "<": -step}.get(condition.sign, 0)
        needed = replace(needed, **{bound.need: value})
    return needed


@given(ANY_NEEDS)
def test_what_is_said_to_lead_to_another_pattern_does(needed: Needs) -> None:
    """And what is said to mend the chosen one does too."""
    choice = choose(needed)
    assert {change.pattern for change in choice.changes} >= set(PATTERNS) - {choice.pattern}
    for change in choice.changes:
        assert change.conditions
        changed = choose(_satisfied(needed, change.conditions))
        assert changed.pattern == change.pattern
        objections = {argument.text for argument in ARGUMENTS if argument.verdict == "against"}
        assert objections.isdisjoint(changed.conflicts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_fits_a_pattern_has_nothing_against_it(pattern: Pattern) -> None:
    """The profile of a pattern is not refuted by the arguments."""
    objections = [argument for argument in ARGUMENTS if argument.objects_to(pattern)]
    for latency in LATENCIES:
        for volume in VOLUMES:
            for age in AGES:
                needed = needs(latency, volume, age)
                if all(condition.holds(needed) for condition in FITS[pattern]):
                    assert choose(needed).pattern == pattern
                    assert [argument.text for argument in objections if argument.holds(needed)] == []


def test_no_row_of_any_table_is_dead() -> None:
    """Each rule decides, and each argument, conflict and note is heard, for some needs."""
    cases = [
        needs(latency, volume, age, effect=effect, phi=phi)
        for latency in LATENCIES
        for volume in VOLUMES
        for age in AGES
        for effect, phi in (("read", False), ("ehr-write", True))
    ]
    choices = [choose(needed) for needed in cases]
    heard = {reason.text for choice in choices for reason in choice.reasons}
    heard |= {text for choice in choices for text in (*choice.conflicts, *choice.warnings)}
    assert {rule.name for rule in RULES} == {choice.rule for choice in choices}
    assert {row.text for row in (*ARGUMENTS, *CONFLICTS, *NOTES)} - heard == set()


def test_the_boundaries_are_the_products_own() -> None:
    """A synchronous call accepts what the table sends to it, and refuses what it does not."""
    values = {bound.value for bound in BOUNDARIES if bound.need == "latency_seconds"}
    assert {FLOOR_SECONDS, LONGEST_DEADLINE_SECONDS} <= values
    with pytest.raises(SpecError, match="AISubmitAndWaitOperator"):
        check_deadline(5.001)
