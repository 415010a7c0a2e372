"""docs/choosing-a-pattern.md, made of the tables in core: ``python -m scripts.choosing_doc --write``.

Without ``--write`` it goes to stdout. A test asserts that the file says what core says.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_ai.core.call_settings import CallSettings
from airflow_provider_ai.core.choosing import choose
from airflow_provider_ai.core.choosing_notes import CONFLICTS, NOTES, Note
from airflow_provider_ai.core.choosing_rules import (
    ARGUMENTS,
    BOUNDARIES,
    MEANINGS,
    NEED_WORDS,
    PATTERNS,
    RULES,
    TITLES,
    Pattern,
    Rule,
)
from airflow_provider_ai.core.needs import QUESTIONS, Needs, Question, say_count, say_span
from airflow_provider_ai.core.skeletons import skeleton

PATH = Path(__file__).parents[1] / "docs" / "choosing-a-pattern.md"
COMMAND = "python -m scripts.choosing_doc --write"


@dataclass(frozen=True, slots=True)
class Example:
    """A case, and what its needs are."""

    title: str
    story: str
    needs: Needs


EXAMPLES = (
    Example(
        "ICU triage",
        "A patient is admitted, and the nurse's system asks for a priority. It waits three seconds, not more; when the "
        "model has said nothing by then, the answer is the default that the clinicians agreed on, marked as degraded. "
        "The nurse waits at a web page, so the page's service calls `SyncCaller`; the DAG is for pipelines that ask "
        "the same model.",
        Needs(latency_seconds=3, volume=1, freshness_seconds=60, effect="read", phi=True),
    ),
    Example(
        "Nightly risk scores",
        "Every visit of the day gets a readmission risk. Scores are on the ward list at 8 in the morning; nobody waits "
        "for a single one.",
        Needs(latency_seconds=6 * 3600, volume=250_000, freshness_seconds=86_400, effect="read", phi=True),
    ),
    Example(
        "Discharge-letter summaries",
        "When a letter is signed, a language model summarises it into the record. It takes up to ten minutes; "
        "the physician has moved on by then.",
        Needs(latency_seconds=600, volume=1, freshness_seconds=3600, effect="ehr-write", phi=True),
    ),
)


def document() -> str:
    """The whole file."""
    parts = (_opening(), _questions(), _decision(), _boundaries(), _arguments(), _conflicts(), _notes(), *_examples())
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    columns = tuple(head)
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _paragraph(text: str, bullet: str = "") -> str:
    indent = " " * len(bullet)
    return textwrap.fill(
        text, 118, initial_indent=bullet, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _point(text: str) -> str:
    return _paragraph(text, "- ")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _opening() -> Iterator[str]:
    yield f"<!-- Made from airflow_provider_ai/core by `{COMMAND}`: change it there. -->"
    yield "# Choosing a pattern"
    yield ""
    yield _paragraph(
        "Choose the pattern before the model: it decides who waits, what happens when nothing comes back, where the "
        "answers lie and how often they are paid for. `airflow-ai choose` asks the five questions below and answers "
        "from the same tables, with the DAG to start from."
    )
    yield ""
    yield from _table(("pattern", "what happens"), ((f"**{TITLES[name]}**", MEANINGS[name]) for name in PATTERNS))


def _questions() -> Iterator[str]:
    yield "## Five questions"
    yield ""
    yield from _table(("", "question", "answer", "flag"), map(_question, QUESTIONS))


def _question(question: Question) -> tuple[str, str, str, str]:
    name = NEED_WORDS.get(question.name, question.name)
    flag = f"{question.flag} {question.metavar}" if question.metavar else f"{question.flag} / --no-{question.name}"
    return f"**{name}**", f"{question.text} {question.help}", question.answers, f"`{flag}`".replace("|", "\\|")


def _decision() -> Iterator[str]:
    yield "## The decision"
    yield ""
    yield _paragraph(
        "The first row that fits decides. Effect and PHI never change the pattern: they decide what "
        "else must be there ([below](#what-else-must-be-there))."
    )
    yield ""
    yield from _table(("", "when", "use", "because"), (_rule(*row) for row in enumerate(RULES, 1)))


def _rule(number: int, rule: Rule) -> tuple[str, str, str, str]:
    return str(number), rule.words, f"**{TITLES[rule.pattern]}**", rule.because


def _boundaries() -> Iterator[str]:
    size = CallSettings().max_response_bytes // 1024**2
    yield "## The boundaries, and why they are where they are"
    yield ""
    rows = ((NEED_WORDS[bound.need], bound.words, bound.why) for bound in BOUNDARIES)
    yield from _table(("", "boundary", "why"), rows)
    yield ""
    yield _paragraph(
        f"Two sizes decide how data travels, but no pattern: a synchronous call refuses answers over {size} MiB unless "
        "`max_response_bytes` says otherwise, and SQS takes 1 MiB per message with its attributes, so larger payloads "
        "lie in object storage and the message carries a reference (Claim Check)."
    )


def _arguments() -> Iterator[str]:
    yield "## For and against"
    yield ""
    yield _paragraph(
        "Heard besides the rules. What speaks against a pattern that is chosen all the same is reported as not fitting."
    )
    yield ""
    rows = (
        (f"**{TITLES[spoken.pattern]}**", spoken.verdict, ", ".join(one.words for one in spoken.when), spoken.text)
        for pattern in PATTERNS
        for spoken in ARGUMENTS
        if spoken.pattern == pattern
    )
    yield from _table(("pattern", "", "when", "because"), rows)


def _conflicts() -> Iterator[str]:
    yield "## When needs contradict each other"
    yield ""
    yield "There is always an answer: the least bad pattern, with what does not fit."
    yield ""
    yield from (_point(_sentence(conflict.text)) for conflict in CONFLICTS)
    for story, needs in (
        ("An answer within a second for a million records, about data that is a second old", _needs(1, 10**6, 1)),
        ("An answer within three seconds for 500 records, about data that is a minute old", _needs(3, 500, 60)),
        ("An answer within a second for a million records, and last night's will do", _needs(1, 10**6, 86_400)),
    ):
        choice = choose(needs)
        fit = (
            "What does not fit: " + "; ".join(choice.conflicts) + "." if choice.conflicts else "Nothing contradicts it."
        )
        yield _point(f"{story}: **{TITLES[choice.pattern]}**. {choice.reasons[0].text} {fit}")


def _needs(latency_seconds: float, volume: int, freshness_seconds: float) -> Needs:
    return Needs(
        latency_seconds=latency_seconds, volume=volume, freshness_seconds=freshness_seconds, effect="read", phi=False
    )


def _notes() -> Iterator[str]:
    yield "## What else must be there"
    for title, patterns in (
        ("Every pattern", PATTERNS),
        *((_sentence(TITLES[name])[:-1], (name,)) for name in PATTERNS),
    ):
        yield ""
        yield f"**{title}**"
        yield ""
        yield from (_point(note.text) for note in NOTES if _listed_under(note, patterns))


def _listed_under(note: Note, patterns: tuple[Pattern, ...]) -> bool:
    """Notes of all patterns stand under these only; of some, under each of them."""
    if note.patterns == PATTERNS or patterns == PATTERNS:
        return note.patterns == patterns
    return patterns[0] in note.patterns


def _examples() -> Iterator[Iterator[str]]:
    yield iter(
        ("## Three examples", "", "With `--no-phi` or another effect the skeletons differ: ask `airflow-ai choose`.")
    )
    yield from map(_example, EXAMPLES)


def _example(example: Example) -> Iterator[str]:
    needs, choice = example.needs, choose(example.needs)
    yield f"### {example.title}"
    yield ""
    yield _paragraph(example.story)
    yield ""
    yield _paragraph(
        f"Latency {say_span(needs.latency_seconds)}, volume {say_count(needs.volume)}, freshness "
        f"{say_span(needs.freshness_seconds)}, {needs.effect}, {'PHI' if needs.phi else 'no PHI'}: "
        f"**{TITLES[choice.pattern]}**. {choice.reasons[0].text}"
    )
    yield ""
    yield "```console"
    yield (
        f"$ airflow-ai choose --latency-seconds {needs.latency_seconds:g} --volume {needs.volume} --freshness "
        f"{needs.freshness_seconds:g} --effect {needs.effect} --{'phi' if needs.phi else 'no-phi'}"
    )
    yield "```"
    yield ""
    yield "```python"
    yield skeleton(choice.pattern, needs).rstrip("\n")
    yield "```"


def main() -> None:
    """Write the file, or print it."""
    if sys.argv[1:] == ["--write"]:
        PATH.write_text(document(), encoding="utf-8")
    else:
        print(document(), end="")


if __name__ == "__main__":
    main()
