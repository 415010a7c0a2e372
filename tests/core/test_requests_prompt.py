"""Prompts: what they may do, what makes a record unrenderable, and which columns they need."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.requests import OpenAIChatRequest, OpenAIEmbeddingsRequest
from airflow_provider_ai.core.requests.prompt import render
from airflow_provider_ai.exceptions import SpecError


@pytest.mark.parametrize(
    ("prompt", "record", "text"),
    [
        ("{{ record.note }}", {"note": "<b> & 'x'"}, "<b> & 'x'"),  # a prompt is no HTML
        ("{{ record['a b'] }}\n", {"a b": 1}, "1\n"),
        ("{{ record.items }}{{ record.get }}", {"items": 3, "get": 4}, "34"),  # columns come before methods of dict
        ("{{ record.note or 'none' }}", {"note": None}, "none"),
        ("{{ record.note | default('none') }}", {}, "none"),
        ("{% if record.note is none %}-{% endif %}", {"note": None}, "-"),
        ("{% for k, v in record.items() %}{{ k }}={{ v }};{% endfor %}", {"a": 1, "b": 2}, "a=1;b=2;"),
        (
            "{{ record | tojson }}",
            {"d": date(2026, 1, 2), "x": "<é>", "n": None},
            '{"d":"2026-01-02","x":"<é>","n":null}',
        ),
    ],
)
def test_renders(prompt: str, record: dict[str, Any], text: str) -> None:
    assert render(prompt, record) == text


@pytest.mark.parametrize(
    ("prompt", "record", "reason"),
    [
        ("{{ record.note }}", {}, "undefined_variable"),
        ("{{ record.note.deep }}", {"note": {}}, "undefined_variable"),
        ("{% if record.note %}x{% endif %}", {}, "undefined_variable"),
        ("{{ record.note | tojson }}", {}, "undefined_variable"),
        ("{{ record.note }}", {"note": None}, "null_value"),
        ("{{ record.note }}", {"note": float("nan")}, "null_value"),
        ("{{ record.note }}", {"note": "\n "}, "empty_prompt"),
        ("{{ 1 / record.note }}", {"note": 0}, "template_error"),
        ("{{ record.note | tojson }}", {"note": object()}, "not_encodable"),
        ("{{ record.__class__.__mro__ }}", {"note": 1}, "template_error"),  # the sandbox hides it
        ("{{ record.note.__class__ }}", {"note": 1}, "template_error"),
        ("{% set _ = record.update({'a': 1}) %}{{ record.a }}", {}, "template_error"),
    ],
)
def test_a_record_without_a_prompt_is_named_by_a_word(prompt: str, record: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnrenderableRecordError) as caught:
        render(prompt, record)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("{{ record.note", r"prompt must be a valid Jinja2 template, got line 1"),
        ("a\n{% nope %}{{ record.x }}", r"valid Jinja2 template, got line 2"),
        ("{{ record.note | nope }}", r"No filter named 'nope'"),
        ("{{ recrod.note }}", r"may use the variable 'record' only, got \['recrod'\]"),
        ("{ record.note }", r"prompt must use a column"),  # single braces: every record would ask the same
        ("  ", r"prompt must be a text, got '  '"),
        (7, r"prompt must be a text, got 7"),
        ("{% include 'x' %}{{ record.x }}", r"must not include or import other templates"),
    ],
)
def test_a_prompt_that_cannot_be_right_is_refused_when_it_is_made(prompt: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        OpenAIChatRequest(prompt=prompt)


def test_system_is_checked_like_the_prompt_and_may_be_the_one_that_uses_the_record() -> None:
    with pytest.raises(SpecError, match=r"system may use the variable 'record' only"):
        OpenAIChatRequest(prompt="{{ record.x }}", system="{{ x }}")
    assert OpenAIChatRequest(prompt="Rate it.", system="{{ record.x }}").columns == ("x",)


@pytest.mark.parametrize(
    ("prompt", "columns"),
    [
        ("{{ record.b }} {{ record['a'] }} {{ record.b | upper }}", ("b", "a")),
        ("{% for x in record.tags %}{{ x.name }}{% endfor %}", ("tags",)),
        ("{% if record.a is defined %}{{ record.a }}{% endif %}", ("a",)),
        ("{{ record | tojson }}", None),
        ("{{ record.a }}{{ record.items() }}", None),
        ("{{ record[record.a] }}", None),
        ("{% set r = record %}{{ r.a }}", None),
        ("{% set record = {'a': record.b} %}{{ record.a }}", None),
    ],
)
def test_the_columns_a_prompt_reads_are_known_beforehand(prompt: str, columns: tuple[str, ...] | None) -> None:
    assert OpenAIChatRequest(prompt=prompt).columns == columns
    assert OpenAIEmbeddingsRequest(prompt=prompt).columns == columns


def test_system_and_prompt_need_the_columns_of_both() -> None:
    assert OpenAIChatRequest(prompt="{{ record.a }}", system="{{ record.b }}{{ record.a }}").columns == ("b", "a")
    assert OpenAIChatRequest(prompt="{{ record.a }}", system="{{ record }}").columns is None
