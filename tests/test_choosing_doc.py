"""docs/choosing-a-pattern.md is what core says, and reads on its own."""

from __future__ import annotations

import re
import shlex

import pytest

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.choosing import choose
from airflow_provider_ai.core.choosing_rules import ARGUMENTS, BOUNDARIES, RULES
from airflow_provider_ai.core.needs import QUESTIONS
from airflow_provider_ai.core.skeletons import skeleton
from scripts import choosing_doc


def test_the_file_is_what_the_source_says() -> None:
    """Run ``python -m scripts.choosing_doc --write`` after a change in core."""
    assert choosing_doc.PATH.read_text(encoding="utf-8") == choosing_doc.document()


def test_every_question_rule_boundary_and_argument_is_in_it() -> None:
    """The document leaves out nothing that decides."""
    text = choosing_doc.document()
    expected = [question.text for question in QUESTIONS]
    expected += [rule.because for rule in RULES] + [bound.why for bound in BOUNDARIES]
    expected += [argument.text for argument in ARGUMENTS]
    assert [part for part in expected if part not in text] == []


def test_every_table_has_as_many_cells_in_each_row() -> None:
    """A bar in a text would break its table."""
    for table in re.findall(r"(?:^\|.*\n)+", choosing_doc.document(), flags=re.MULTILINE):
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(cells) == 1, table


def test_the_examples_are_one_of_each_pattern() -> None:
    """With the skeletons that the command prints."""
    choices = [choose(example.needs).pattern for example in choosing_doc.EXAMPLES]
    assert sorted(choices) == ["async", "batch", "sync"]
    text = choosing_doc.document()
    for example, pattern in zip(choosing_doc.EXAMPLES, choices, strict=True):
        assert f"```python\n{skeleton(pattern, example.needs)}```\n" in text


def test_the_commands_in_it_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Each prints the skeleton that stands below it."""
    commands = re.findall(r"^\$ airflow-ai (choose .*)$", choosing_doc.document(), flags=re.MULTILINE)
    assert len(commands) == len(choosing_doc.EXAMPLES)
    for command, example in zip(commands, choosing_doc.EXAMPLES, strict=True):
        assert main([*shlex.split(command), "--skeleton-only"]) == 0
        assert capsys.readouterr().out == skeleton(choose(example.needs).pattern, example.needs)
