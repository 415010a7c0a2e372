"""Messages come back as they were sent, and whatever is not one of ours is told so in one word."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ai.core import messages
from airflow_provider_ai.core.jobs import Content, JobState, Outcome
from airflow_provider_ai.core.messages import (
    LARGEST_INLINE_BYTES,
    MAX_MESSAGE_BYTES,
    RequestMessage,
    ResultMessage,
    decode_request,
    decode_result,
    encode_request,
    encode_result,
    fits_inline,
    id_in,
)
from airflow_provider_ai.exceptions import UndecodableMessageError

CANARY = "canary-4711"


def inline(data: bytes, codec: str = "identity") -> Content:
    return Content(sha256=hashlib.sha256(data).hexdigest(), inline=data, codec=codec)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
DATA = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
CODECS = st.sampled_from(["identity", "aes-256-gcm"])
CONTENTS = st.builds(inline, DATA, CODECS) | st.builds(
    lambda data, ref, codec: Content(sha256=hashlib.sha256(data).hexdigest(), ref=ref, codec=codec),
    DATA,
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40),
    CODECS,
)
TIMES = st.integers(0, 250_000_000_000_000_000 // 1_000_000).map(lambda seconds: seconds + 0.123456)
IDS = st.uuids().map(str)
ENDS = st.sampled_from([JobState.FAILED, JobState.EXPIRED, JobState.CANCELLED])
OUTCOMES = st.builds(
    lambda content, model: Outcome(state=JobState.SUCCEEDED, content=content, model=model),
    CONTENTS,
    st.sampled_from([None, "risk-1", "handlers:triage", "ü"]),
) | st.builds(
    lambda state, reason: Outcome(state=state, reason=reason), ENDS, st.sampled_from(["expired", "handler:ValueError"])
)
SOURCES = st.sampled_from(["/airflow-ai/worker", "urn:x:ü"])


@given(
    st.builds(RequestMessage, job_id=IDS, source=SOURCES, time=TIMES, payload=CONTENTS, expires_at=st.none() | TIMES)
)
def test_a_request_comes_back(message: RequestMessage) -> None:
    """Whatever bytes it carries, inline or not, through whatever codec."""
    body = encode_request(message)
    body.decode()
    assert decode_request(body) == message


@given(
    st.builds(ResultMessage, job_id=IDS, source=SOURCES, time=TIMES, fence=st.integers(0, 2**63 - 1), outcome=OUTCOMES)
)
def test_a_result_comes_back(message: ResultMessage) -> None:
    """However the job ended."""
    assert decode_result(encode_result(message)) == message


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_are_kept_to_the_microsecond(microseconds: int) -> None:
    """Until the year 2096."""
    message = request(time=microseconds / 1_000_000)
    assert decode_request(encode_request(message)).time == microseconds / 1_000_000


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_are_no_message(body: bytes) -> None:
    """Whatever they are, the answer is the one exception."""
    for decode in (decode_request, decode_result):
        with pytest.raises(UndecodableMessageError):
            decode(body)  # type: ignore[operator]
    assert id_in(body) is None or isinstance(json.loads(body), dict)


def request(**changes: Any) -> RequestMessage:
    given: dict[str, Any] = {
        "job_id": "6b8a1b0e-7f0c-5f0a-9c1d-2a5d0c6f4e11",
        "source": "/airflow-ai/submitter",
        "time": 1_800_000_000.25,
        "payload": inline(b'{"note":"x"}'),
    }
    return RequestMessage(**{**given, **changes})


def test_the_format() -> None:
    """As written down in the module and in the guide; a JSON payload is readable in the queue."""
    assert json.loads(encode_request(request(expires_at=1_800_003_600.0))) == {
        "specversion": "1.0",
        "id": "6b8a1b0e-7f0c-5f0a-9c1d-2a5d0c6f4e11",
        "source": "/airflow-ai/submitter",
        "type": "ai.job.request",
        "time": "2027-01-15T08:00:00.250000Z",
        "datacontenttype": "application/json",
        "data": {
            "schema_version": 1,
            "expires_at": "2027-01-15T09:00:00.000000Z",
            "payload": {"note": "x"},
            "sha256": hashlib.sha256(b'{"note":"x"}').hexdigest(),
        },
    }


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',  # white space
        b'{"a":1,"a":2}',  # a name twice
        b"18446744073709551616",  # more than 64 bits
        b'"\\u00fc"',  # escaped without need
        b"1.0e0",
        b"\xff",
        b"",
        b"[" * 300 + b"]" * 300,  # deeper than it can be written
    ],
)
def test_bytes_that_json_would_change(data: bytes) -> None:
    """They travel in base64."""
    body = encode_request(request(payload=inline(data)))
    assert json.loads(body)["data"]["payload_base64"] == base64.b64encode(data).decode()
    assert decode_request(body).payload == inline(data)


@pytest.mark.parametrize(
    "time", ["2027-01-15T08:00:00Z", "2027-01-15t10:00:00.5+02:00", "2027-01-15T07:59:59.999-00:00"]
)
def test_times_of_others(time: str) -> None:
    """Every form that RFC 3339 allows."""
    body = changed(time=time)
    assert abs(decode_request(body).time - 1_800_000_000) <= 0.5


def changed(*, data: dict[str, Any] | None = None, **attributes: Any) -> bytes:
    """The request with other attributes; ``...`` removes one."""
    event = json.loads(encode_request(request()))
    for target, changes in ((event, attributes), (event["data"], data or {})):
        for name, value in changes.items():
            target.pop(name, None)
            if value is not ...:
                target[name] = value
    return json.dumps(event).encode()


WRONG_REQUESTS: list[tuple[bytes, str]] = [
    (b"", messages.NOT_JSON),
    (b"\xff\xfe", messages.NOT_JSON),
    (b'{"id": NaN}', messages.NOT_JSON),
    (b"[1]", messages.NOT_AN_EVENT),
    (b"null", messages.NOT_AN_EVENT),
    (b" " * (MAX_MESSAGE_BYTES + 1), messages.OVERSIZED),
    (changed(specversion=...), messages.NOT_AN_EVENT),
    (changed(specversion="0.3"), messages.NOT_AN_EVENT),
    (changed(specversion=1.0), messages.NOT_AN_EVENT),
    (changed(id=...), messages.WRONG_ID),
    (changed(id=""), messages.WRONG_ID),
    (changed(id=7), messages.WRONG_ID),
    (changed(id=f"{CANARY} with a space"), messages.WRONG_ID),
    (changed(id="x" * 129), messages.WRONG_ID),
    (changed(source=...), messages.WRONG_SOURCE),
    (changed(source=""), messages.WRONG_SOURCE),
    (changed(type=...), messages.WRONG_TYPE),
    (changed(type="ai.job.result"), messages.WRONG_TYPE),
    (changed(type="com.example.other"), messages.WRONG_TYPE),
    (changed(time=...), messages.WRONG_TIME),
    (changed(time=1_800_000_000), messages.WRONG_TIME),
    (changed(time="2027-01-15"), messages.WRONG_TIME),
    (changed(time="2027-01-15T08:00:00"), messages.WRONG_TIME),
    (changed(time="2027-13-15T08:00:00Z"), messages.WRONG_TIME),
    (changed(time="2027-01-15T08:00:61Z"), messages.WRONG_TIME),
    (changed(datacontenttype="text/xml"), messages.WRONG_CONTENT_TYPE),
    (changed(), ""),
    (changed(data={"schema_version": ...}), messages.UNKNOWN_SCHEMA),
    (changed(data={"schema_version": 2}), messages.UNKNOWN_SCHEMA),
    (changed(data={"schema_version": True}), messages.UNKNOWN_SCHEMA),
    (changed(data={"schema_version": "1"}), messages.UNKNOWN_SCHEMA),
    (changed(data={"expires_at": 0}), messages.WRONG_TIME),
    (changed(data={"expires_at": "soon"}), messages.WRONG_TIME),
    (changed(data={"payload": ...}), messages.WRONG_CONTENT),
    (changed(data={"ref": "s3://claims/x"}), messages.WRONG_CONTENT),
    (changed(data={"payload": ..., "ref": 7}), messages.WRONG_CONTENT),
    (changed(data={"payload": ..., "ref": ""}), messages.WRONG_CONTENT),
    (changed(data={"payload": ..., "payload_base64": "%"}), messages.WRONG_CONTENT),
    (changed(data={"payload": ..., "payload_base64": "ü"}), messages.WRONG_CONTENT),
    (changed(data={"payload": ..., "payload_base64": None}), messages.WRONG_CONTENT),
    (changed(data={"sha256": ...}), messages.WRONG_CONTENT),
    (changed(data={"sha256": "0" * 63}), messages.WRONG_CONTENT),
    (changed(data={"sha256": "0" * 64}), messages.WRONG_HASH),
    (changed(data={"payload": CANARY}), messages.WRONG_HASH),
    (changed(data={"codec": 1}), messages.WRONG_CONTENT),
    (changed(data={"payload": "deep"}).replace(b'"deep"', b"[" * 300 + b"]" * 300), messages.WRONG_CONTENT),
    (b"[" * 2_000 + b"]" * 2_000, messages.NOT_JSON),
]


@pytest.mark.parametrize(("body", "reason"), WRONG_REQUESTS)
def test_what_is_wrong_with_a_request(body: bytes, reason: str) -> None:
    """One word, and nothing of the message."""
    if not reason:
        assert decode_request(body) == request()
        return
    with pytest.raises(UndecodableMessageError) as caught:
        decode_request(body)
    assert caught.value.reason == reason
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_data_that_is_no_object() -> None:
    """As any event of others may have it."""
    event = json.loads(changed())
    for data in (None, "x", [], 1):
        with pytest.raises(UndecodableMessageError, match=messages.NOT_AN_EVENT):
            decode_request(json.dumps({**event, "data": data}).encode())


def test_extensions_are_ignored() -> None:
    """Of the event and of its data, as of a later minor version of either."""
    assert decode_request(changed(traceparent="00-…", data={"priority": 1})) == request()
    assert decode_request(changed(datacontenttype=...)) == request()


def result(outcome: Outcome, change: Callable[[dict[str, Any]], Any]) -> bytes:
    message = ResultMessage(job_id="j", source="/w", time=1.0, fence=3, outcome=outcome)
    event = json.loads(encode_result(message))
    change(event["data"])
    return json.dumps(event).encode()


SUCCEEDED = Outcome(state=JobState.SUCCEEDED, content=inline(b"[1]"))
EXPIRED = Outcome(state=JobState.EXPIRED, reason="expired")


@pytest.mark.parametrize(
    ("outcome", "change", "reason"),
    [
        (SUCCEEDED, lambda data: data.pop("status"), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(status="running"), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(status=["succeeded"]), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(reason="expired"), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.pop("output"), messages.WRONG_CONTENT),
        (SUCCEEDED, lambda data: data.update(fence=-1), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(fence=True), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(fence=1.0), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.pop("fence"), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(model=7), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: data.update(model="m\0"), messages.WRONG_OUTCOME),
        (SUCCEEDED, lambda data: [data.pop("output"), data.update(ref="s3://claims/\0")], messages.WRONG_CONTENT),
        (EXPIRED, lambda data: data.update(reason=None), messages.WRONG_OUTCOME),
        (EXPIRED, lambda data: data.update(reason=f"the patient {CANARY}"), messages.WRONG_OUTCOME),
        (EXPIRED, lambda data: data.update(output=1), messages.WRONG_OUTCOME),
    ],
)
def test_what_is_wrong_with_a_result(outcome: Outcome, change: Callable[..., Any], reason: str) -> None:
    """One word, and nothing of the message."""
    with pytest.raises(UndecodableMessageError) as caught:
        decode_result(result(outcome, change))
    assert caught.value.reason == reason
    assert CANARY not in str(caught.value)


def test_the_job_of_a_message_that_is_wrong_otherwise() -> None:
    """So that its dead letter fails the job that waits for it."""
    assert id_in(changed(data={"schema_version": 9})) == request().job_id
    assert id_in(changed(id="no id")) is None
    assert id_in(b"{") is None


@given(st.integers(0, 20).map(lambda more: LARGEST_INLINE_BYTES - more))
def test_what_fits_is_sent(size: int) -> None:
    """The largest content that travels inline makes a message that a queue takes, in its worst form."""
    data = b"\xff" * size
    assert fits_inline(data, limit=10**9)
    assert len(encode_request(request(payload=inline(data)))) < MAX_MESSAGE_BYTES - 8192


def test_what_does_not_fit() -> None:
    """More than the setting, or than a queue takes whatever the setting."""
    assert fits_inline(b"x" * 10, limit=10)
    assert not fits_inline(b"x" * 11, limit=10)
    assert not fits_inline(b"x" * (LARGEST_INLINE_BYTES + 1), limit=10**9)
