"""What a caller gives and gets: one record or many, in order, and words instead of data when it does not work."""

from __future__ import annotations

import random
from collections import UserDict, UserList
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_ai.core.call_inputs import CallRecords, output_of, records_of
from airflow_provider_ai.core.config import PROTOCOLS, Protocol
from airflow_provider_ai.core.ports import Decoded, InvalidAnswerError, Request, UnrenderableRecordError
from airflow_provider_ai.core.requests import (
    JsonRequest,
    OpenAIChatRequest,
    OpenAIEmbeddingsRequest,
    OpenInferenceRequest,
    reasons,
)

WORDS = {value for name, value in vars(reasons).items() if name.isupper()}
CANARY = "PHI-4711"


def _call(request: JsonRequest, inputs: Any, answer: Any) -> Any:
    """What a caller gets when the server makes ``answer`` of the records it was sent."""
    records = records_of(inputs, protocol=request.protocol)
    sent = orjson.loads(request.encode("m", records.ids, records.records).body)["inputs"]
    decoded = request.decode(orjson.dumps({"outputs": answer(sent)}), records.ids)
    return output_of(decoded, records, protocol=request.protocol)


def _priorities(sent: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In an order of the server's own, as protocol ``json`` allows."""
    return [{"id": item["id"], "twice": 2 * item["x"]} for item in reversed(sent)]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({"x": 1}, {"twice": 2}),
        ({"id": "v1", "x": 1}, {"id": "v1", "twice": 2}),
        ([{"x": 1}], [{"twice": 2}]),
        ([{"x": 1}, {"x": 2}], [{"twice": 2}, {"twice": 4}]),
        ([{"id": 7, "x": 1}, {"id": "7", "x": 2}], [{"id": 7, "twice": 2}, {"id": "7", "twice": 4}]),
        # a position that is the id of another record
        ([{"x": 1}, {"id": 0, "x": 2}, {"x": 3}], [{"twice": 2}, {"id": 0, "twice": 4}, {"twice": 6}]),
        (({"x": 1},), [{"twice": 2}]),
        (UserList([UserDict({"x": 1})]), [{"twice": 2}]),
    ],
)
def test_json_outputs_come_back_in_the_order_and_shape_of_the_inputs(inputs: Any, expected: Any) -> None:
    """A record's own id stands in front of its output; a made-up one is never shown."""
    output = _call(JsonRequest(), inputs, _priorities)
    assert output == expected
    first = output[0] if isinstance(output, list) else output
    assert list(first) == sorted(first), "the id comes first"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([None, None], (0, 1)),
        ([1, None], (1, 2)),  # 1 is taken, so the next number nobody has
        ([None, 0, 3, None], (4, 0, 3, 5)),
        (["0", None], ("0", 1)),  # the text "0" is not the number 0
        ([2, None, None], (2, 1, 3)),
    ],
)
def test_records_without_an_id_get_their_position_or_a_number_nobody_has(ids: list[Any], expected: Any) -> None:
    """Two records are never sent under one id."""
    inputs = [{"x": 1} if key is None else {"id": key, "x": 1} for key in ids]
    assert records_of(inputs, protocol="json").ids == expected


def test_ids_are_distinct_and_given_ones_are_kept(seed: int) -> None:
    """Whatever mix of given and missing ids comes."""
    chance = random.Random(seed)
    for _ in range(300):
        keys = chance.sample([*range(12), *map(str, range(12))], k=chance.randint(1, 10))
        inputs = [{"id": key} if chance.random() < 0.5 else {} for key in keys]
        ids = records_of(inputs, protocol="json").ids
        assert len({(type(key), key) for key in ids}) == len(inputs)
        assert all(record.get("id", key) == key for key, record in zip(ids, inputs, strict=True))


@pytest.mark.parametrize("protocol", [protocol for protocol in PROTOCOLS if protocol != "json"])
def test_id_is_a_field_like_any_other_to_the_protocols_without_ids(protocol: Protocol) -> None:
    """A tensor may hold a column of that name."""
    records = records_of([{"id": True, "x": 1}], protocol=protocol)
    assert (records.ids, records.records) == ((0,), ({"id": True, "x": 1},))
    assert output_of(Decoded(outputs=[{"y": 1}]), records, protocol=protocol) == [{"y": 1}]


@pytest.mark.parametrize(
    ("inputs", "protocol", "word"),
    [
        (None, "json", "not_records"),
        (CANARY, "json", "not_records"),
        (CANARY.encode(), "json", "not_records"),
        (63, "json", "not_records"),
        ({CANARY}, "json", "not_records"),
        (iter([{"x": 1}]), "json", "not_records"),
        ([CANARY], "json", "not_records"),
        ([{"x": 1}, None], "json", "not_records"),
        ([[{"x": 1}]], "json", "not_records"),
        ({4711: CANARY}, "open-inference", "not_records"),
        ([{"x": 1, None: CANARY}], "openai-embeddings", "not_records"),
        ([], "json", "empty_inputs"),
        ((), "openai-chat", "empty_inputs"),
        ([{"note": CANARY}, {"note": "x"}], "openai-chat", "too_many_records"),
        ({"id": None}, "json", "invalid_id"),
        ({"id": True}, "json", "invalid_id"),
        ({"id": 1.5}, "json", "invalid_id"),
        ([{"id": [CANARY]}], "json", "invalid_id"),
        ([{"id": CANARY}, {"id": CANARY}], "json", "duplicate_id"),
    ],
)
def test_inputs_that_are_no_records_are_refused_with_a_word(inputs: Any, protocol: Protocol, word: str) -> None:
    """The word says what is wrong, and nothing of the data."""
    with pytest.raises(UnrenderableRecordError) as refused:
        records_of(inputs, protocol=protocol)
    assert str(refused.value) == word


@pytest.mark.parametrize("outputs", [["schema_mismatch", {"y": 2}], [{"y": 1}, "schema_mismatch"]])
def test_an_answer_without_an_output_for_each_record_is_none(outputs: list[Any]) -> None:
    """Half an answer is a failure of the call, and falls back as a whole."""
    records = records_of([{"x": 1}, {"x": 2}], protocol="open-inference")
    with pytest.raises(InvalidAnswerError, match=r"^schema_mismatch$"):
        output_of(Decoded(outputs=outputs), records, protocol="open-inference")


def test_an_answer_with_another_number_of_outputs_is_none() -> None:
    """Outputs are never moved to other records."""
    records = records_of([{"x": 1}, {"x": 2}], protocol="open-inference")
    for outputs in ([], [{"y": 1}], [{"y": 1}] * 3):
        with pytest.raises(InvalidAnswerError, match=r"^missing_output$"):
            output_of(Decoded(outputs=outputs), records, protocol="open-inference")


def test_the_caller_may_change_its_records_afterwards() -> None:
    """A thread that was left behind still reads what was asked."""
    inputs = [{"x": 1}]
    records = records_of(inputs, protocol="json")
    inputs[0]["x"] = 2
    inputs.clear()
    assert records.records == ({"x": 1},)


def test_records_are_not_shown() -> None:
    """They may stand in a traceback or a log line."""
    records: CallRecords = records_of({"id": CANARY, "x": CANARY}, protocol="json")
    assert CANARY not in repr(records)


CHAT, EMBEDDINGS = OpenAIChatRequest(prompt="{{ record.x }}"), OpenAIEmbeddingsRequest(prompt="{{ record.x }}")
REQUESTS: list[Any] = [JsonRequest(), OpenInferenceRequest(), OpenInferenceRequest(layout="columns"), CHAT, EMBEDDINGS]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=2)
    | st.just({1}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
record = st.dictionaries(st.sampled_from(["id", "x", "y"]), values, max_size=3)


@settings(max_examples=500, deadline=None)
@given(inputs=values | record | st.lists(record, max_size=3), request=st.sampled_from(REQUESTS))
def test_whatever_comes_is_sent_or_refused_with_a_known_word(inputs: Any, request: Any) -> None:
    """From the caller's inputs to the bytes, nothing else is raised."""
    assert _sent_or_refused(inputs, request, request.protocol) in ({"sent"} | WORDS)


def _sent_or_refused(inputs: Any, request: Request, protocol: Protocol) -> str:
    try:
        records = records_of(inputs, protocol=protocol)
        body = request.encode("m", records.ids, records.records).body
    except UnrenderableRecordError as refused:
        return str(refused)
    return "sent" if isinstance(orjson.loads(body), dict) else "sent nothing"
