"""Prompts: Jinja2 in a sandbox, compiled once for each text, over one variable named ``record``.

A prompt never lies about its data: a column that is not there, and a null that would be printed as the word "None",
make the record unrenderable. Say what to print instead with ``{{ record.note or "no note" }}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.environment import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from airflow_provider_ai.core.config import require
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.requests import reasons
from airflow_provider_ai.core.requests.values import to_json
from airflow_provider_ai.exceptions import SpecError

_RECORD = "record"


class _PromptEnvironment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Columns come before methods: ``record.items`` is a column when there is one of that name."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


def _printable(value: Any) -> Any:
    if value is None or (isinstance(value, float) and value != value):
        raise UnrenderableRecordError(reasons.NULL_VALUE)
    return value


def _tojson(value: Any) -> str:
    return str(value) if isinstance(value, StrictUndefined) else to_json(value).decode()  # str() of it raises


@lru_cache(maxsize=1)
def _environment() -> _PromptEnvironment:
    environment = _PromptEnvironment(
        undefined=StrictUndefined,
        autoescape=False,  # the output is a prompt, not HTML
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters["tojson"] = _tojson
    return environment


@lru_cache(maxsize=256)
def _parsed(source: str) -> nodes.Template:
    return _environment().parse(source)


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    try:
        return _environment().from_string(source)
    except TemplateSyntaxError as error:
        raise SpecError(f"prompt must be a valid Jinja2 template, got line {error.lineno}: {error.message}") from None


def check(name: str, source: object) -> None:
    """SpecError unless ``source`` is a template that uses nothing but ``record``."""
    require(isinstance(source, str) and bool(source.strip()), f"{name} must be a text", source)
    text = str(source)
    _compiled(text)
    tree = _parsed(text)
    unknown = sorted(meta.find_undeclared_variables(tree) - {_RECORD} - _environment().globals.keys())
    require(not unknown, f"{name} may use the variable 'record' only", unknown)
    foreign = next(iter(meta.find_referenced_templates(tree)), "")
    require(foreign == "", f"{name} must not include or import other templates", foreign)


def uses_record(source: str) -> bool:
    """Whether the text differs between records at all."""
    return _RECORD in meta.find_undeclared_variables(_parsed(source))


@lru_cache(maxsize=256)
def columns_used(source: str) -> tuple[str, ...] | None:
    """The columns a prompt reads, in order of use; None when it takes the record as a whole."""
    names: list[str] = []
    tree = _parsed(source)
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        name = _column(node)
        if name is not None:
            names.append(name)
    mentions = [name for name in tree.find_all(nodes.Name) if name.name == _RECORD]
    return tuple(dict.fromkeys(names)) if len(mentions) == len(names) else None


def _column(node: nodes.Expr) -> str | None:
    if not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    if not isinstance(node.node, nodes.Name) or node.node.name != _RECORD:
        return None
    if isinstance(node, nodes.Getattr):
        return None if hasattr(dict, node.attr) else node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else None


def render(source: str, record: Mapping[str, Any]) -> str:
    """The prompt for one record; UnrenderableRecordError when it has none."""
    try:
        text = _compiled(source).render(record=record)
    except UnrenderableRecordError:
        raise
    except UndefinedError:
        raise UnrenderableRecordError(reasons.UNDEFINED_VARIABLE) from None
    except Exception:  # noqa: BLE001 - a template can fail in any way on foreign data; the message would quote it
        raise UnrenderableRecordError(reasons.TEMPLATE_ERROR) from None
    if not text.strip():
        raise UnrenderableRecordError(reasons.EMPTY_PROMPT)
    return text
