"""Template fields whose values nobody may see.

Airflow stores template fields twice, as written in the serialized DAG and as rendered under Rendered Templates, and
prints them when rendering fails. A hidden field is rendered like any other, keeps its references to other tasks (so
that they are upstream), and shows its shape in all these places: names and counts, never a value.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin

Render = Callable[[Any], Any]
_SHOWN_NAMES = 40


class Hidden(ResolveMixin):
    """A value that is not shown.

    :param value: as written: plain values, templates, references to other tasks
    :param origin: the argument it was taken from, where that is not the value itself
    """

    def __init__(self, value: Any, *, origin: object = None) -> None:
        self.value = value
        self.origin = value if origin is None else origin

    @abstractmethod
    def described(self) -> Any:
        """What is shown instead, as plain JSON."""

    def rendered(self, render: Render) -> Hidden:
        """The same with every template and reference replaced by its value."""
        return type(self)(_fetched(render(self.value)))

    def parts(self) -> Iterable[object]:
        """The objects that Airflow may know as data of another task."""
        return (self.origin,)

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Tasks that the value refers to; Airflow makes them upstream."""
        return XComArg.iter_xcom_references(self.value)

    def serialize(self) -> Any:
        """What Airflow stores and shows."""
        return self.described()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.described()}>"


class Inputs(Hidden):
    """The inputs of a call: a record, or records."""

    def described(self) -> str:
        """Field names and the number of records."""
        value = self.value
        if isinstance(value, XComArg):
            return f"from {', '.join(operator.task_id for operator, _ in self.iter_references())}"
        if isinstance(value, Mapping):
            return f"1 record: {_names(value)}"
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            first = value[0] if len(value) else {}
            return f"{len(value):,} records: {_names(first) if isinstance(first, Mapping) else 'no fields'}"
        return "a template" if isinstance(value, str) else type(value).__name__


class Arguments(Hidden):
    """The arguments of a function: a list, or a dict by name."""

    def described(self) -> Any:
        """Their number or names, and the tasks they come from."""
        given = self.value.items() if isinstance(self.value, Mapping) else enumerate(self.value)
        return {str(name): _kind(argument) for name, argument in given}

    def parts(self) -> Iterable[object]:
        """The arguments, one by one."""
        return self.value.values() if isinstance(self.value, Mapping) else self.value


def ids_of_data(task: Any, hidden: Hidden) -> set[int]:
    """Ids of what a mapped ``task`` was given by ``expand_kwargs`` over the output of another task.

    Airflow marks such values for ``expand`` and not for ``expand_kwargs``; templates in data must never be rendered.
    """
    mapped = task.dag.task_dict.get(task.task_id) if task.has_dag() else None
    expanded = getattr(mapped, "op_kwargs_expand_input", None) or getattr(mapped, "expand_input", None)
    given = getattr(expanded, "value", ())
    from_tasks = isinstance(given, XComArg) or (isinstance(given, list) and any(isinstance(g, XComArg) for g in given))
    if mapped is None or not from_tasks:
        return set()
    written = [*mapped.partial_kwargs.values(), *mapped.partial_kwargs.get("op_kwargs", {}).values()]
    return {id(part) for part in hidden.parts() if all(part is not own for own in written)}


def _fetched(value: Any) -> Any:
    """``value`` with plain lists in place of those that Airflow fetches one by one: only this thread may fetch."""
    if isinstance(value, dict):
        return {key: _fetched(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_fetched(part) for part in value]
    return value


def _kind(argument: Any) -> str:
    return Inputs(argument).described() if isinstance(argument, XComArg) else type(argument).__name__


def _names(record: Mapping[Any, Any]) -> str:
    names = [str(name) for name in record]
    rest = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")
