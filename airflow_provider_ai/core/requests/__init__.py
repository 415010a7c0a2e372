"""The protocols: how records become one HTTP body and how the answer becomes output columns.

Each class is a frozen set of settings that implements :class:`airflow_provider_ai.core.ports.Request`. Everything here
is pure, so the three patterns share it: the same settings and records give the same bytes, in every process.

A record that cannot be sent raises UnrenderableRecordError. An answer is never trusted: a body that is no answer at all
raises InvalidAnswerError, a record without a valid output gets a reason instead of columns. Both say what was wrong in
one word of :mod:`airflow_provider_ai.core.requests.reasons`, never with data. An output column whose name starts with
``_`` is refused (``reserved_column``): those names belong to the lineage columns of the table.
"""

from __future__ import annotations

from airflow_provider_ai.core.requests.json_request import JsonRequest
from airflow_provider_ai.core.requests.open_inference import OpenInferenceRequest
from airflow_provider_ai.core.requests.openai_chat import OpenAIChatRequest
from airflow_provider_ai.core.requests.openai_embeddings import OpenAIEmbeddingsRequest

__all__ = ["JsonRequest", "OpenAIChatRequest", "OpenAIEmbeddingsRequest", "OpenInferenceRequest"]
