"""The answer of a synchronous call. It always says what it is: the endpoint's own, or a fallback and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Source = Literal["primary", "last-good", "endpoint", "callable", "static"]
SeenState = Literal["closed", "open", "half_open", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer; :meth:`to_dict` is what goes into XCom and what ``airflow-ai call`` prints.

    :param output: the output columns of one record, or a list of them for a list of records; a fallback's value
    :param output_ref: where the output lies instead, ``{"uri", "sha256", "bytes"}``; then ``output`` is None
    :param degraded: whether it is not the endpoint's own answer
    :param reason: why, as one word of :mod:`airflow_provider_ai.core.call_reasons`; None when it is not degraded
    :param detail: more for the person on call, such as ``HTTP 503``; never data
    :param source: the link that gave it
    :param age_seconds: of a last good answer; None for the others
    :param attempts: calls that were sent, to whatever endpoint
    :param elapsed_ms: from the call to this answer, milliseconds
    :param breaker_state: the endpoint's circuit breaker when it was asked; ``unknown`` when the store did not say
    :param model: whose answer it is; None for a callable or a static one
    """

    output: Any
    degraded: bool
    reason: str | None
    source: Source
    attempts: int
    elapsed_ms: float
    breaker_state: SeenState
    output_ref: dict[str, Any] | None = None
    detail: str | None = None
    age_seconds: float | None = None
    model: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: either ``output`` or ``output_ref``, and everything else."""
        body = asdict(self)
        del body["output" if self.output_ref is not None else "output_ref"]
        body["elapsed_ms"] = round(self.elapsed_ms, 3)
        body["age_seconds"] = None if self.age_seconds is None else round(self.age_seconds, 3)
        return body
