"""Chains of audit events: what is hashed, and that no change of one goes unnoticed or is said to be elsewhere."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_ai.core.audit import (
    Actor,
    AuditAction,
    AuditEvent,
    AuditOutcome,
    Position,
    digest_of,
    packed_keys,
)
from airflow_provider_ai.core.audit_chain import (
    GENESIS,
    WRITER,
    Head,
    Row,
    SignedHead,
    canonical,
    facts_of,
    next_row,
    start_of,
)
from airflow_provider_ai.core.audit_check import ChainWalk, Finding, FindingKind, judge_end

WRITER_NAME = "20261124T201500Z-0123456789ab"
ACTOR = Actor(kind="airflow", role="submitter", user="dr. grün", dag_id="triage", task_id="ask", run_id='m"__1')


def events(count: int, chance: random.Random) -> list[AuditEvent]:
    made = []
    for number in range(count):
        keys = packed_keys(f"{chance.getrandbits(128):032x}" for _ in range(chance.choice((0, 1, 1, 1, 5))))
        made.append(
            AuditEvent(
                action=chance.choice(list(AuditAction)),
                outcome=chance.choice(list(AuditOutcome)),
                actor=ACTOR,
                at_us=1_790_000_000_000_000 + number,
                keys=keys,
                records=len(keys) // 16,
                digest=digest_of(keys),
                model=chance.choice((None, "m")),
                reference=f"reference-{number}",
            )
        )
    return made


def chain(made: list[AuditEvent], writer: str = WRITER_NAME) -> list[Row]:
    rows, end = [], start_of(writer)
    for event in made:
        rows.append(next_row(end, event))
        end = Position(writer, rows[-1].sequence, rows[-1].hash)
    return rows


def head(rows: list[Row], *, closed: bool = False) -> Head:
    last = rows[-1]
    return Head(writer=last.writer, sequence=last.sequence, hash=last.hash, at_us=0, closed=closed)


def findings(rows: list[Row], heads: list[Head] | None = None) -> list[Finding]:
    """Of one chain, as verifying finds them."""
    found: list[Finding] = []
    walk = ChainWalk(found.append)
    walk.begin(WRITER_NAME, heads or [])
    for start in range(0, len(rows), 7):  # in pages
        walk.feed(rows[start : start + 7])
    at_the_end, _ = judge_end(WRITER_NAME, walk.last, heads or [], expected=heads is not None)
    return found + at_the_end


def kinds(found: list[Finding]) -> list[tuple[FindingKind, int]]:
    return [(finding.kind, finding.sequence) for finding in found]


def test_the_hash_is_what_the_documentation_says(seed: int) -> None:
    """Anyone can compute it with a JSON library and SHA-256."""
    first, second = chain(events(2, random.Random(seed)))
    assert first.sequence == 1
    for previous, row in ((GENESIS, first), (first.hash, second)):
        facts = json.loads(row.facts)
        bound = json.dumps(
            [1, row.writer, row.sequence, row.at_us, row.records, row.digest, facts],
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        assert hashlib.sha256(previous + bound).digest() == row.hash
        assert hashlib.sha256(row.keys).hexdigest() == row.digest if row.keys else not row.digest


def test_canonical_bytes_are_unambiguous_json() -> None:
    """What is in one place can never look as if it were in another."""
    tricky = replace(events(1, random.Random(1))[0], reference='x",{"action":"infer"}]', reason="\n\\")
    bound = canonical(WRITER_NAME, 1, 2, 3, "d", facts_of(tricky))
    assert json.loads(bound) == [1, WRITER_NAME, 1, 2, 3, "d", tricky.facts()]
    assert canonical(WRITER_NAME, 11, 1, 0, "", b"{}") != canonical(WRITER_NAME, 1, 11, 0, "", b"{}")


def test_absent_and_empty_are_not_the_same_event() -> None:
    """A model that is not named is no model with an empty name."""
    event = events(1, random.Random(1))[0]
    assert facts_of(replace(event, model=None)) != facts_of(replace(event, model=""))


def test_an_untouched_chain_has_no_findings(seed: int) -> None:
    """With its head or without."""
    rows = chain(events(50, random.Random(seed)))
    assert findings(rows) == findings(rows, [head(rows)]) == findings(rows, [head(rows, closed=True)]) == []


FIELDS: dict[str, Callable[[Row], Row]] = {
    "at_us": lambda row: row._replace(at_us=row.at_us + 1),
    "records": lambda row: row._replace(records=row.records + 1),
    "digest": lambda row: row._replace(digest="0" * 64),
    "action": lambda row: row._replace(facts=row.facts.replace(b'"action":"', b'"action":"x')),
    "outcome": lambda row: row._replace(facts=row.facts.replace(b'"outcome":"', b'"outcome":"x')),
    "user": lambda row: row._replace(facts=row.facts.replace(b"dr. gr", b"Dr. gr")),
    "reference": lambda row: row._replace(facts=row.facts.replace(b"reference-", b"reference+")),
    "no facts": lambda row: row._replace(facts=b""),
    "hash": lambda row: row._replace(hash=bytes(32)),
    "a float": lambda row: row._replace(at_us=row.at_us + 0.4),  # type: ignore[arg-type]
    "text": lambda row: row._replace(facts=row.facts.decode()),  # type: ignore[arg-type]
    "null": lambda row: row._replace(hash=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("field", FIELDS)
def test_an_edit_of_any_field_is_found_where_it_is(field: str, seed: int) -> None:
    """That event, or the one after it whose hash was bound to it; nothing else is accused."""
    chance = random.Random(seed)
    rows = chain(events(40, chance))
    at = chance.randrange(39)
    rows[at] = FIELDS[field](rows[at])
    found = kinds(findings(rows, [head(rows)]))
    assert found, field
    assert {sequence for _, sequence in found} <= {at + 1, at + 2}
    assert {kind for kind, _ in found} <= {FindingKind.EDITED, FindingKind.KEYS_EDITED}


def test_an_edited_event_hashed_anew_breaks_the_next_one(seed: int) -> None:
    """Whoever edits and computes the hash again has to do so for all that follow."""
    chance = random.Random(seed)
    made = events(40, chance)
    rows = chain(made)
    at = chance.randrange(38)
    before = Position(WRITER_NAME, at, rows[at - 1].hash if at else GENESIS)
    rows[at] = next_row(before, replace(made[at], reason="forged"))
    assert kinds(findings(rows, [head(rows)])) == [(FindingKind.EDITED, at + 2)]


def test_a_chain_rewritten_from_some_event_on_contradicts_its_head(seed: int) -> None:
    """It fits together, but it is not the one that was signed; only the head tells."""
    chance = random.Random(seed)
    made = events(40, chance)
    genuine = chain(made)
    made[chance.randrange(40)] = replace(made[0], reason="forged")
    forged = chain(made)
    assert findings(forged) == []
    assert kinds(findings(forged, [head(genuine)])) == [(FindingKind.REWRITTEN, 40)]


@pytest.mark.parametrize("where", ["keys", "their order", "their absence"])
def test_record_keys_are_bound(where: str) -> None:
    """Another record's key, another order, none at all."""
    event = replace(
        events(1, random.Random(1))[0], keys=b"a" * 16 + b"b" * 16, records=2, digest=digest_of(b"a" * 16 + b"b" * 16)
    )
    row = chain([event])[0]
    wrong = {"keys": b"a" * 16 + b"c" * 16, "their order": b"b" * 16 + b"a" * 16, "their absence": None}[where]
    assert kinds(findings([row._replace(keys=wrong)])) == [(FindingKind.KEYS_EDITED, 1)]


def test_keys_may_lie_beside_another_event() -> None:
    """Where the event says so itself."""
    keys = b"a" * 16
    event = replace(events(1, random.Random(1))[0], keys=b"", records=1, digest=digest_of(keys))
    assert findings(chain([event])) == []


def test_deleted_events_are_found(seed: int) -> None:
    """Which ones, and no others."""
    chance = random.Random(seed)
    rows = chain(events(40, chance))
    first = chance.randrange(1, 38)
    last = chance.randrange(first, 38)
    found = findings(rows[:first] + rows[last + 1 :], [head(rows)])
    assert [(each.kind, each.sequence, each.until) for each in found] == [(FindingKind.MISSING, first + 1, last + 1)]


def test_a_deleted_beginning_is_found() -> None:
    """Also without heads."""
    rows = chain(events(5, random.Random(1)))
    assert kinds(findings(rows[1:])) == [(FindingKind.MISSING, 1)]


def test_swapped_events_are_found(seed: int) -> None:
    """Both of them: the content of each is at the other's number."""
    chance = random.Random(seed)
    rows = chain(events(40, chance))
    one, other = sorted(chance.sample(range(40), 2))
    rows[one], rows[other] = (
        rows[other]._replace(sequence=one + 1),
        rows[one]._replace(sequence=other + 1),
    )
    found = {sequence for _, sequence in kinds(findings(rows))}
    assert {one + 1, other + 1} <= found <= {one + 1, one + 2, other + 1, other + 2}


def test_a_replayed_event_is_found(seed: int) -> None:
    """A genuine one, once more at the end, under the next number."""
    chance = random.Random(seed)
    rows = chain(events(20, chance))
    rows.append(rows[chance.randrange(19)]._replace(sequence=21))
    assert (FindingKind.EDITED, 21) in kinds(findings(rows))


def test_an_event_of_another_chain_is_found() -> None:
    """The writer is in what is hashed."""
    mine, other = (chain(events(3, random.Random(1)), name) for name in (WRITER_NAME, "20261124T201500Z-ba9876543210"))
    assert kinds(findings([mine[0], other[1]._replace(writer=WRITER_NAME), mine[2]])) == [
        (FindingKind.EDITED, 2),
        (FindingKind.EDITED, 3),
    ]


def test_a_truncated_tail_is_found_by_its_head(seed: int) -> None:
    """The chain that is left is whole in itself."""
    rows = chain(events(40, random.Random(seed)))
    kept = random.Random(seed).randrange(1, 40)
    assert findings(rows[:kept]) == []
    assert [(each.kind, each.sequence, each.until) for each in findings(rows[:kept], [head(rows)])] == [
        (FindingKind.TRUNCATED, kept + 1, 40)
    ]


def test_a_removed_chain_is_found_by_its_head() -> None:
    """And by nothing else."""
    rows = chain(events(4, random.Random(1)))
    assert kinds(findings([], [head(rows)])) == [(FindingKind.REMOVED_CHAIN, 1)]


def test_events_after_a_closing_head_are_found() -> None:
    """They were made up: the writer had ended."""
    rows = chain(events(6, random.Random(1)))
    assert kinds(findings(rows, [head(rows[:4], closed=True)])) == [(FindingKind.AFTER_CLOSE, 5)]


def test_a_chain_without_any_head_is_unknown() -> None:
    """Where heads are kept, only a writer that died at its very beginning has none."""
    rows = chain(events(6, random.Random(1)))
    assert kinds(findings(rows, [])) == [(FindingKind.UNKNOWN_CHAIN, 1)]
    assert findings(rows[:1], []) == []
    assert findings(rows, None) == []


def test_events_that_no_head_vouches_for_are_counted() -> None:
    """They are no finding: the next head is yet to come."""
    rows = chain(events(6, random.Random(1)))
    assert judge_end(WRITER_NAME, 6, [head(rows[:4])], expected=True) == ([], 2)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"writer":1}', b"\xff", b'{"writer":"w","sequence":"x"}'])
def test_what_is_no_head_is_none(data: bytes) -> None:
    """A file of heads may hold anything."""
    assert SignedHead.from_json(data) is None


def test_heads_survive_their_file() -> None:
    """As they were, and under names that sort."""
    rows = chain(events(3, random.Random(1)))
    signed = SignedHead(head=head(rows, closed=True), key_id="k" * 16, signature=b"s" * 64)
    assert SignedHead.from_json(signed.to_json()) == signed
    names = [replace(signed.head, sequence=number, closed=False).name for number in (1, 9, 10, 100)]
    assert names == sorted(names)
    assert WRITER.fullmatch(signed.head.writer)
