"""What an operator is to submit: one request, many, or a dataset. Requests are hidden, a dataset is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import XComArg

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.hidden import Inputs


class JobRequests(Inputs):
    """Requests that are shown by their names and number; the URI of a dataset is shown as it is."""

    def described(self) -> str:
        """Field names and the number of requests, or the dataset."""
        return self.value if is_dataset(self.value) else super().described()


def is_dataset(value: object) -> bool:
    """Whether it is a path or a URI, and no single template, whose value nobody knows."""
    return isinstance(value, str) and (value.startswith(("/", "./", "../")) or "://" in value[:12])


def check_requests(value: object, id_column: str | None) -> None:
    """SpecError when it cannot be requests, as far as that can be told before rendering."""
    if isinstance(value, XComArg | Mapping):
        return
    if isinstance(value, str):
        if is_dataset(value) and id_column is None:
            raise SpecError("id_column must name the column that identifies a row, for requests that are a dataset")
        if is_dataset(value) or "{{" in value or "{%" in value:
            return
        raise SpecError("requests must be a mapping, a list of them, or the URI or absolute path of a dataset")
    if not isinstance(value, Sequence):
        raise SpecError(f"requests must be a mapping, a list of them, or a dataset, got {type(value).__name__}")


def listed(value: object) -> list[Any]:
    """Rendered requests, one by one."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if all(isinstance(each, Mapping) for each in value):
            return list(value)
        raise SpecError("requests must be mappings of inputs; one of the list is none")
    raise SpecError(
        f"requests must be a mapping, a list of them, or the URI of a dataset, got {type(value).__name__} after "
        "rendering"
    )
