"""What a request must be for a batch: a file has no fields in a promised order, and brings the records itself."""

from __future__ import annotations

from airflow_provider_ai.core.ports import Request
from airflow_provider_ai.core.requests.open_inference import OpenInferenceRequest
from airflow_provider_ai.exceptions import SpecError


def check_batch_request(request: Request) -> None:
    """SpecError when a request can only be used in a synchronous call."""
    if isinstance(request, OpenInferenceRequest) and request.columns is None:
        raise SpecError(
            "OpenInferenceRequest must name its columns in a batch, in the order the model was trained on "
            "(the order of a file's columns is no contract), got none"
        )
    if getattr(request, "inputs", None) is not None:
        raise SpecError("request must have no inputs in a batch: they belong to a synchronous call")
