"""An OpenAI-compatible server with two small models. Runs in LitServe's own environment: ``python -P`` and this file.

`triage` reads a note and says how urgent it is: a text classifier trained at start on the notes below. Asked with a
JSON schema it fills in the schema's properties by their types, and like other models it knows nothing of formats or
bounds. `hashing` embeds texts as normalised word counts. Both give the same answer to the same question, in every
process.
Usage: serve_openai.py PORT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litserve
from fastapi import HTTPException
from litserve.specs.openai import ChatCompletionRequest, ResponseFormatJSONSchema
from litserve.specs.openai_embedding import EmbeddingRequest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

CHAT_MODEL = "triage"
EMBEDDING_MODEL = "hashing"
DIMENSIONS = 64
MOST_TEXTS = 256

NOTES = {
    "emergency": [
        "crushing chest pain radiating to the left arm, sweating",
        "sudden loss of speech and facial droop since ten minutes",
        "unresponsive after a fall, shallow breathing",
        "severe shortness of breath, lips turning blue",
        "seizure that has not stopped for six minutes",
        "heavy bleeding that does not stop under pressure",
        "anaphylaxis after a bee sting, swollen tongue",
        "overdose of opioids, pinpoint pupils, slow breathing",
    ],
    "urgent": [
        "fever of 39.8 for three days with a stiff back",
        "deep cut on the hand, bleeding controlled, needs stitches",
        "persistent vomiting since yesterday, cannot keep fluids down",
        "suspected fracture of the wrist after a bicycle fall",
        "worsening abdominal pain on the lower right side",
        "painful swollen calf after a long flight",
        "blood sugar above 300 with blurred vision",
        "asthma getting worse, inhaler helps only briefly",
    ],
    "routine": [
        "repeat prescription for blood pressure tablets",
        "yearly check-up, no complaints",
        "mild seasonal hay fever, asks for advice",
        "follow-up visit, wound healing well",
        "request for a copy of the vaccination record",
        "dry skin on the elbows for some months",
        "occasional mild headache after work",
        "travel vaccination before a holiday",
    ],
}


class Triage(litserve.LitAPI):
    """Protocol openai-chat."""

    def setup(self, device: str) -> None:
        texts = [note for notes in NOTES.values() for note in notes]
        labels = [label for label, notes in NOTES.items() for _ in notes]
        words = HashingVectorizer(n_features=4096, ngram_range=(1, 2), alternate_sign=False)
        self.model = make_pipeline(words, LogisticRegression(C=100.0, max_iter=1000)).fit(texts, labels)

    def decode_request(self, request: ChatCompletionRequest) -> tuple[str, dict[str, Any] | None]:
        _require_model(request.model, CHAT_MODEL)
        if not request.messages:
            raise HTTPException(400, "messages must hold at least one message")
        asked = request.response_format
        schema = asked.json_schema.schema_ if isinstance(asked, ResponseFormatJSONSchema) else None
        return str(request.messages[-1].content), schema

    def predict(self, question: tuple[str, dict[str, Any] | None]) -> Any:
        text, schema = question
        chances = dict(zip(self.model.classes_, self.model.predict_proba([text])[0].tolist(), strict=True))
        label = max(chances, key=chances.__getitem__)
        said = f"Priority: {label}." if schema is None else json.dumps(_filled(schema, schema, chances))
        asked, answered = len(text.split()), len(said.split())
        usage = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
        yield {"role": "assistant", "content": said, **usage}


def _filled(schema: dict[str, Any], root: dict[str, Any], chances: dict[str, float]) -> Any:
    """A value of the schema's type that says how urgent the note is."""
    label = max(chances, key=chances.__getitem__)
    if "$ref" in schema:
        return _filled(root["$defs"][schema["$ref"].rpartition("/")[2]], root, chances)
    if "enum" in schema:
        return max(schema["enum"], key=lambda choice: chances.get(choice, 0.0))
    if schema.get("type") == "object":
        return {name: _filled(part, root, chances) for name, part in schema.get("properties", {}).items()}
    by_type = {
        "number": chances[label],
        "integer": round(100 * chances[label]),
        "boolean": label != "routine",
        "array": [],
    }
    return by_type.get(schema.get("type", "string"), label)


class Hashing(litserve.LitAPI):
    """Protocol openai-embeddings."""

    def setup(self, device: str) -> None:
        """There is nothing to load."""

    def decode_request(self, request: EmbeddingRequest) -> tuple[list[str], int]:
        _require_model(request.model, EMBEDDING_MODEL)
        texts = request.ensure_list()
        if len(texts) > MOST_TEXTS or not all(isinstance(text, str) for text in texts):
            raise HTTPException(400, f"input must be at most {MOST_TEXTS} texts")
        return texts, request.dimensions or DIMENSIONS

    def predict(self, question: tuple[list[str], int]) -> list[list[float]]:
        texts, dimensions = question
        words = HashingVectorizer(n_features=dimensions, norm="l2", token_pattern=r"\w+")
        return words.transform(texts).toarray().tolist()


def _require_model(asked: str | None, served: str) -> None:
    if asked != served:
        raise HTTPException(404, f"The model {asked!r} does not exist here")


def main(port: int) -> None:
    apis = [Triage(spec=litserve.OpenAISpec()), Hashing(spec=litserve.OpenAIEmbeddingSpec())]
    server = litserve.LitServer(apis, accelerator="cpu", devices=1, timeout=30)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
