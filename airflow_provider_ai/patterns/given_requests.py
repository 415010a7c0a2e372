"""Requests on their way into a submission: what of each may leave, as the bytes that its job is bound to, in groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction import Necessary
from airflow_provider_ai.core.requests.values import to_json
from airflow_provider_ai.exceptions import InputError

_GROUP_BYTES = 4 << 20
_NOTHING = b"null"  # what stands for a request that must not leave


@dataclass(frozen=True, slots=True)
class GivenRequest:
    """A request at its position; ``refused``: why it must not leave, with ``payload`` then none of it."""

    position: int
    payload: bytes
    refused: str | None = None


def grouped(requests: Iterable[GivenRequest], most: int) -> Iterator[list[GivenRequest]]:
    """Groups of at most so many requests and about 4 MiB, in order."""
    group: list[GivenRequest] = []
    size = 0
    for request in requests:
        group.append(request)
        size += len(request.payload)
        if len(group) == most or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def given_request(position: int, request: Any, necessary: Necessary | None) -> GivenRequest:
    """What may leave of a request.

    :raises InputError: it has no JSON form
    """
    if necessary is not None:
        try:
            request = necessary.payload(request)
        except UnrenderableRecordError as error:
            return GivenRequest(position, _NOTHING, str(error))
    return GivenRequest(position, _payload(position, request))


def _payload(position: int, request: Any) -> bytes:
    """The request as JSON; equal requests give equal bytes, which a job's id is bound to."""
    try:
        return to_json(request, sort_keys=True)
    except UnrenderableRecordError as error:
        raise InputError(
            f"request {position} (they count from 0) has no JSON form ({error}). Those before it may be submitted; "
            "correct it, then run again, which submits the others"
        ) from None
