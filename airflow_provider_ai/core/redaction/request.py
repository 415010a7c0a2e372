"""A request that sends the minimum: of each record what is :class:`Necessary`, under a number for its id.

It is a :class:`~airflow_provider_ai.core.ports.Request` around another, so batch, synchronous call and worker all
redact here and nowhere else, before there are any bytes. Its rules are part of the identity: other rules, other
checkpoints. What goes out as a record's id is its position in the call; answers are matched by that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_ai.core.config import Protocol, require
from airflow_provider_ai.core.ports import Decoded, EncodedRequest, Request
from airflow_provider_ai.core.redaction.necessary import Necessary
from airflow_provider_ai.exceptions import SpecError

_UNSENT = "id"  # what JsonRequest calls the number that it sends for each record


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedRequest:
    """``inner`` with less.

    :param inputs: of a synchronous call
    :raises SpecError: the inner request asks for a field that may not leave, or that is dropped
    """

    inner: Request
    necessary: Necessary
    inputs: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.inner.inputs is not None:
            raise SpecError("a redacted request must have its inputs itself")
        allowed = self.necessary.to_read
        asked = set(self.inner.columns or ())
        outside = [] if allowed is None else sorted(asked - set(allowed))
        require(not outside, "the request must ask for no column that may not leave, or is dropped", outside)

    @property
    def protocol(self) -> Protocol:
        """The inner request's."""
        return self.inner.protocol

    @property
    def records_per_request(self) -> int:
        """The inner request's."""
        return self.inner.records_per_request

    @property
    def columns(self) -> Sequence[str] | None:
        """What has to be read: what the inner request asks for, or else what may leave and is not dropped."""
        asked = self.inner.columns
        return self.necessary.to_read if asked is None else asked

    def identity(self) -> dict[str, Any]:
        """The inner request's, with fields and rules."""
        return {**self.inner.identity(), "necessary": self.necessary.identity()}

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for these records. UnrenderableRecordError when one of them cannot be sent, or not redacted."""
        left = [self.necessary.record(record) for record in records]
        if self.protocol == "json":
            for position, record in enumerate(left):
                if _UNSENT in record:  # an id of the record's own: the number takes its place
                    record[_UNSENT] = position
        return self.inner.encode(model, range(len(ids)), left)

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """Outputs in the order of ``ids``."""
        return self.inner.decode(body, range(len(ids)))
