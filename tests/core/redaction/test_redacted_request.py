"""A request around a request: nothing but the necessary is in its bytes, for each protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.identity import checkpoint_key
from airflow_provider_ai.core.ports import UnrenderableRecordError
from airflow_provider_ai.core.redaction import Necessary, RedactedRequest, Redaction, listed_columns
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
)
from airflow_provider_ai.exceptions import SpecError

IDS = ["canary-a", "canary-b"]
RECORDS = [
    {"mrn": "canary-a", "name": "Canary One", "age": 95, "note": "canary? no: well"},
    {"mrn": "canary-b", "name": "Canary Two", "age": 41, "note": "ill"},
]
AGES = Redaction(rules={"age": {"rule": "age", "as": "number"}})
REQUESTS = [
    JsonRequest(),
    JsonRequest(columns=["age"]),
    OpenInferenceRequest(columns=["age"]),
    OpenAIChatRequest(prompt="How old is {{ record.age }}?"),
    OpenAIEmbeddingsRequest(prompt="age {{ record.age }}"),
]


def redacted(request: Any, **changes: Any) -> RedactedRequest:
    return RedactedRequest(
        inner=request, necessary=Necessary(allowed=("age",), redaction=AGES, id_column="mrn", **changes)
    )


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: one.protocol)
def test_only_the_necessary_is_in_the_bytes(request_: Any) -> None:
    """No name, no id, no field that is not listed; what is listed as its rule leaves it."""
    count = min(2, request_.records_per_request)
    sent = redacted(request_).encode("m", IDS[:count], RECORDS[:count])
    assert b"anary" not in sent.body
    assert b"95" not in sent.body
    assert b"90" in sent.body


def test_the_id_that_goes_out_is_a_position() -> None:
    """And answers are matched by it, in whatever order they come."""
    request = redacted(JsonRequest())
    sent = orjson.loads(request.encode("m", IDS, RECORDS).body)
    assert sent["inputs"] == [{"id": 0, "age": 90}, {"id": 1, "age": 41}]
    answer = orjson.dumps({"outputs": [{"id": 1, "risk": "low"}, {"id": 0, "risk": "high"}]})
    assert list(request.decode(answer, IDS).outputs) == [{"risk": "high"}, {"risk": "low"}]


def test_an_id_column_called_id() -> None:
    """It is replaced as well, even where it is listed."""
    necessary = Necessary(allowed=("id", "age"), id_column="id")
    request = RedactedRequest(inner=JsonRequest(), necessary=necessary)
    body = request.encode("m", ["canary-a"], [{"id": "canary-a", "age": 1}]).body
    assert orjson.loads(body)["inputs"] == [{"id": 0, "age": 1}]


def test_strict() -> None:
    """A field that is not listed is refused where a caller gives it, and left out where a reader does."""
    with pytest.raises(UnrenderableRecordError, match=r"^field_not_allowed$"):
        redacted(JsonRequest(), strict=True).encode("m", IDS, RECORDS)
    kept = redacted(JsonRequest(), strict=True).encode("m", IDS, [{"age": 1}, {"age": 2, "mrn": "canary-b"}])
    assert b"anary" not in kept.body


def test_what_has_to_be_read() -> None:
    """What the request asks for, or else the list without what is dropped: the rest never leaves the file."""
    assert redacted(JsonRequest(columns=["age"])).columns == ("age",)
    assert redacted(JsonRequest()).columns == ("age",)
    drops = Necessary(allowed=("age", "name"), redaction=Redaction(rules={"name": "drop"}))
    assert RedactedRequest(inner=JsonRequest(), necessary=drops).columns == ("age",)
    assert RedactedRequest(inner=JsonRequest(), necessary=Necessary(redaction=AGES)).columns is None


def test_other_rules_are_other_checkpoints() -> None:
    """An answer to a question under other rules is never taken for one under these."""
    endpoint = EndpointSettings(url="http://127.0.0.1", protocol="json", model="m")
    plain, inner = redacted(JsonRequest()), JsonRequest()
    variants = [
        inner,
        plain,
        replace(plain, necessary=replace(plain.necessary, redaction=None)),
        replace(plain, necessary=replace(plain.necessary, allowed=("age", "note"))),
        replace(plain, necessary=replace(plain.necessary, redaction=Redaction(rules={"age": "age"}))),
    ]
    keys = {checkpoint_key(fingerprint="f", request=each.identity(), endpoint=endpoint.identity()) for each in variants}
    assert len(keys) == len(variants)


@pytest.mark.parametrize(
    ("inner", "necessary"),
    [
        (JsonRequest(columns=["age", "name"]), {"allowed": ("age",)}),
        (OpenAIChatRequest(prompt="{{ record.name }}"), {"allowed": ("age",)}),
        (JsonRequest(columns=["age"]), {"redaction": Redaction(rules={"age": "drop"}), "allowed": ("age",)}),
        (JsonRequest(), {"redaction": Redaction(rules={"name": "mask"}), "allowed": ("age",)}),
        (JsonRequest(), {"redaction": AGES, "id_column": "age", "keep_id": True}),
        (JsonRequest(), {"allowed": ()}),
        (JsonRequest(inputs={"age": 1}), {"allowed": ("age",)}),
    ],
)
def test_what_contradicts_itself(inner: Any, necessary: dict[str, Any]) -> None:
    """A request that asks for more than may leave, a rule for what does not leave anyway."""
    with pytest.raises(SpecError):
        RedactedRequest(inner=inner, necessary=Necessary(**necessary))


def test_payloads_of_jobs() -> None:
    """A record or a list of them, with the id beside the fields where replies are matched by it."""
    necessary = Necessary(allowed=("age",), redaction=AGES, id_column="mrn", keep_id=True)
    assert necessary.payload(RECORDS[0]) == {"mrn": "canary-a", "age": 90}
    assert necessary.payload(RECORDS) == [{"mrn": "canary-a", "age": 90}, {"mrn": "canary-b", "age": 41}]
    with pytest.raises(UnrenderableRecordError, match=r"^not_records$"):
        necessary.payload("Canary One")


def test_listed_columns() -> None:
    """What an author has listed is an allow-list; what a prompt happens to use is none."""
    assert listed_columns(JsonRequest(columns=["age"])) == ("age",)
    assert listed_columns(JsonRequest()) is None
    assert listed_columns(OpenAIChatRequest(prompt="{{ record.age }}")) is None
    assert listed_columns(None) is None
