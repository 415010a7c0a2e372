"""Protocol ``openai-embeddings``: texts in, vectors out, over ``/v1/embeddings``, matched by ``index``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from airflow_provider_ai.core.config import Protocol, require
from airflow_provider_ai.core.ports import Decoded, EncodedRequest, InvalidAnswerError
from airflow_provider_ai.core.requests import prompt as prompts
from airflow_provider_ai.core.requests import reasons, settings, values

_NUMBERS = {float, int}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIEmbeddingsRequest:
    """One vector per record. All vectors of an answer have the same length, and ``dimensions`` when that is set.

    :param prompt: Jinja2 text to embed
    :param records_per_request: most records in one call
    :param dimensions: length of the vectors to ask for; ``None`` leaves it to the model
    :param output_column: column of the vector
    :param path: below the endpoint's URL
    :param inputs: record, or records, of a synchronous call (Airflow: templated); no part of a batch
    """

    prompt: str = "{{ record.text }}"
    records_per_request: int = 64
    dimensions: int | None = None
    output_column: str = "embedding"
    path: str = "/v1/embeddings"
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)

    protocol: ClassVar[Protocol] = "openai-embeddings"

    def __post_init__(self) -> None:
        prompts.check("prompt", self.prompt)
        used = prompts.uses_record(self.prompt)
        require(used, "prompt must use a column, such as {{ record.text }}, or all vectors are the same", self.prompt)
        settings.require_count("records_per_request", self.records_per_request)
        if self.dimensions is not None:
            settings.require_count("dimensions", self.dimensions)
        settings.require_output_columns(self.output_columns)
        settings.require_path(self.path)

    @property
    def columns(self) -> tuple[str, ...] | None:
        """The columns the prompt reads; ``None`` when it takes the record as a whole."""
        return prompts.columns_used(self.prompt)

    @property
    def output_columns(self) -> tuple[str, ...]:
        """The one output column."""
        return (self.output_column,)

    def identity(self) -> dict[str, Any]:
        """What decides the question that is asked; see :class:`airflow_provider_ai.core.ports.Request`."""
        return {
            "protocol": self.protocol,
            "path": self.path,
            "prompt": self.prompt,
            "dimensions": self.dimensions,
            "output_column": self.output_column,
        }

    def encode(self, model: str, ids: Sequence[Any], records: Sequence[Mapping[str, Any]]) -> EncodedRequest:
        """One call for these records. UnrenderableRecordError when one of their texts cannot be rendered."""
        texts = [prompts.render(self.prompt, record) for record in records]
        request: dict[str, Any] = {"model": model, "input": texts}
        if self.dimensions is not None:
            request["dimensions"] = self.dimensions
        body = values.to_json(request)
        return EncodedRequest(path=self.path, body=body, estimated_tokens=values.estimate_tokens(body))

    def decode(self, body: bytes, ids: Sequence[Any]) -> Decoded:
        """Outputs in the order of ``ids``. InvalidAnswerError when the body is no answer at all."""
        answer = values.parse_object(body)
        results: list[list[float] | str | None] = [None] * len(ids)
        for item in values.list_of(answer, "data"):
            index = item.get("index") if type(item) is dict else None
            if values.is_int(index) and 0 <= index < len(ids):
                repeated = results[index] is not None
                results[index] = reasons.DUPLICATE_OUTPUT if repeated else self._vector(item.get("embedding"))
        lengths = {len(vector) for vector in results if type(vector) is list}
        if len(lengths) > 1:
            raise InvalidAnswerError(reasons.WRONG_SHAPE)
        return Decoded(outputs=[self._columns(vector) for vector in results], usage=values.usage_of(answer))

    def _vector(self, embedding: object) -> list[float] | str:
        if type(embedding) is not list or not embedding:
            return reasons.WRONG_TYPE
        kinds = {*map(type, embedding)}
        if not kinds <= _NUMBERS:
            return reasons.WRONG_TYPE
        if self.dimensions is not None and len(embedding) != self.dimensions:
            return reasons.WRONG_SHAPE
        return embedding if kinds == {float} else [float(number) for number in embedding]

    def _columns(self, vector: list[float] | str | None) -> dict[str, Any] | str:
        if vector is None:
            return reasons.MISSING_OUTPUT
        return vector if isinstance(vector, str) else {self.output_column: vector}
