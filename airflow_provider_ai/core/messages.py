"""The messages between submitters, workers and dispatchers: CloudEvents 1.0, JSON, structured mode.

::

    {"specversion": "1.0", "id": job_id, "source": …, "type": "ai.job.request", "time": RFC 3339,
     "datacontenttype": "application/json",
     "data": {"schema_version": 1, "expires_at": RFC 3339 or null, "payload": …, "sha256": …}}

    {…, "type": "ai.job.result",
     "data": {"schema_version": 1, "status": "succeeded", "fence": 3, "output": …, "sha256": …, "reason": null,
     "model": …}}

In place of ``payload`` (``output``) there may be ``payload_base64``, for bytes that JSON would not give back as they
were, or ``ref``, a claim check. ``codec`` names the codec between the bytes that ``sha256`` is of (keyed, when it
encrypts) and those sent; it is absent when there is none, and ``model`` when nobody says what answered. Attributes that
are not known here are ignored, as CloudEvents asks.

Decoding is strict: a message is ours and whole, or :class:`UndecodableMessageError` says in one word what is wrong.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from airflow_provider_ai.core.jobs import Content, JobState, Outcome
from airflow_provider_ai.exceptions import UndecodableMessageError

REQUEST: Final = "ai.job.request"
RESULT: Final = "ai.job.result"
SCHEMA_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""What SQS takes, attributes included."""
_ENVELOPE_BYTES = 16 * 1024  # everything but the content, the queue's own attributes included
LARGEST_INLINE_BYTES: Final = (MAX_MESSAGE_BYTES - _ENVELOPE_BYTES) // 4 * 3
"""Bytes that fit a message even in base64."""

# What is wrong with a message.
OVERSIZED: Final = "oversized"  # larger than any queue's limit
NOT_JSON: Final = "not_json"
NOT_AN_EVENT: Final = "not_an_event"  # JSON, but no object, or no CloudEvent 1.0
WRONG_ID: Final = "wrong_id"
WRONG_SOURCE: Final = "wrong_source"
WRONG_TYPE: Final = "wrong_type"  # an event of another kind
WRONG_TIME: Final = "wrong_time"  # time or expires_at is not RFC 3339
WRONG_CONTENT_TYPE: Final = "wrong_content_type"
UNKNOWN_SCHEMA: Final = "unknown_schema"  # a schema_version that this package does not know
WRONG_CONTENT: Final = "wrong_content"  # no payload, or several, or no hash, or not decodable
WRONG_HASH: Final = "wrong_hash"  # the content is not the one that was sent
WRONG_OUTCOME: Final = "wrong_outcome"  # status, fence, reason or model

_ID = re.compile(r"[\x21-\x7e]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_MOST_CHARACTERS = 2048
_IDENTITY = "identity"
_Name = Literal["payload", "output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMessage:
    """A job to do. Times are epoch seconds, kept to the microsecond.

    :param source: who sends it: a URI reference, such as ``/airflow-ai/submitter``
    """

    job_id: str
    source: str
    time: float
    payload: Content
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultMessage:
    """How a job ended. ``fence``: of the claim under which it did; 0 without one."""

    job_id: str
    source: str
    time: float
    fence: int
    outcome: Outcome


def fits_inline(data: bytes, *, limit: int) -> bool:
    """Whether bytes, as the codec gives them, travel in the message: no more than ``limit``, nor than a queue takes."""
    return len(data) <= min(limit, LARGEST_INLINE_BYTES)


# --- encoding


def encode_request(message: RequestMessage) -> bytes:
    """The message as UTF-8 JSON."""
    expires = None if message.expires_at is None else _rfc3339(message.expires_at)
    data = {"schema_version": SCHEMA_VERSION, "expires_at": expires, **_content(message.payload, "payload")}
    return _event(message, REQUEST, data)


def encode_result(message: ResultMessage) -> bytes:
    """The message as UTF-8 JSON."""
    outcome = message.outcome
    data = {
        "schema_version": SCHEMA_VERSION,
        "status": outcome.state.value,
        "fence": message.fence,
        "reason": outcome.reason,
        **({} if outcome.model is None else {"model": outcome.model}),
        **({} if outcome.content is None else _content(outcome.content, "output")),
    }
    return _event(message, RESULT, data)


def _event(message: RequestMessage | ResultMessage, kind: str, data: Mapping[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": message.job_id,
            "source": message.source,
            "type": kind,
            "time": _rfc3339(message.time),
            "datacontenttype": "application/json",
            "data": data,
        }
    )


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _content(content: Content, name: _Name) -> dict[str, Any]:
    hashed = {"sha256": content.sha256} | ({} if content.codec == _IDENTITY else {"codec": content.codec})
    if content.inline is None:
        return {"ref": content.ref, **hashed}
    if content.codec == _IDENTITY and _survives_json(content.inline):
        return {name: orjson.Fragment(content.inline), **hashed}
    return {f"{name}_base64": base64.b64encode(content.inline).decode(), **hashed}


def _survives_json(data: bytes) -> bool:
    """Whether reading and writing it as JSON gives the same bytes."""
    try:
        return orjson.dumps(orjson.loads(data)) == data
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return False


# --- decoding


def decode_request(body: bytes) -> RequestMessage:
    """The request in a message.

    :raises UndecodableMessageError: when it is none
    """
    event, data = _opened(body, REQUEST)
    expires = data.get("expires_at")
    return RequestMessage(
        job_id=event["id"],
        source=event["source"],
        time=_epoch(event.get("time")),
        payload=_read_content(data, "payload"),
        expires_at=None if expires is None else _epoch(expires),
    )


def decode_result(body: bytes) -> ResultMessage:
    """The result in a message.

    :raises UndecodableMessageError: when it is none
    """
    event, data = _opened(body, RESULT)
    fence: Any = data.get("fence")
    _require(type(fence) is int and 0 <= fence < 2**63, WRONG_OUTCOME)
    return ResultMessage(
        job_id=event["id"],
        source=event["source"],
        time=_epoch(event.get("time")),
        fence=fence,
        outcome=_outcome(data),
    )


def id_in(body: bytes) -> str | None:
    """The job that a message names, however little else of it can be read; None when it names none."""
    try:
        event = _event_in(body)
    except UndecodableMessageError:
        return None
    return event["id"] if _is_id(event.get("id")) else None


def _event_in(body: bytes) -> dict[str, Any]:
    _require(len(body) <= MAX_MESSAGE_BYTES, OVERSIZED)
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UndecodableMessageError(NOT_JSON) from None
    _require(isinstance(event, dict), NOT_AN_EVENT)
    return event  # type: ignore[no-any-return]


def _opened(body: bytes, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The event, and its data."""
    event = _event_in(body)
    _require(event.get("specversion") == "1.0", NOT_AN_EVENT)
    _require(_is_id(event.get("id")), WRONG_ID)
    _require(_is_text(event.get("source")), WRONG_SOURCE)
    _require(event.get("type") == kind, WRONG_TYPE)
    _require(event.get("datacontenttype", "application/json") == "application/json", WRONG_CONTENT_TYPE)
    data: Any = event.get("data")
    _require(isinstance(data, dict), NOT_AN_EVENT)
    version = data.get("schema_version")
    _require(type(version) is int and version == SCHEMA_VERSION, UNKNOWN_SCHEMA)
    return event, data


def _epoch(text: object) -> float:
    _require(isinstance(text, str) and _TIME.fullmatch(text) is not None, WRONG_TIME)
    try:
        return datetime.fromisoformat(str(text).upper()).timestamp()
    except (ValueError, OverflowError):
        raise UndecodableMessageError(WRONG_TIME) from None


def _outcome(data: Mapping[str, Any]) -> Outcome:
    """A result has content and no reason; any other end has a reason and no content."""
    status, reason = data.get("status"), data.get("reason")
    states = {state.value: state for state in JobState if state.final}
    _require(isinstance(status, str) and status in states, WRONG_OUTCOME)
    state = states[str(status)]
    if state is JobState.SUCCEEDED:
        model: Any = data.get("model")
        _require(reason is None and (model is None or _is_text(model)), WRONG_OUTCOME)
        return Outcome(state=state, content=_read_content(data, "output"), model=model)
    _require(isinstance(reason, str) and _WORD.fullmatch(reason) is not None, WRONG_OUTCOME)
    _require(not _CONTENT_OF["output"] & data.keys(), WRONG_OUTCOME)
    return Outcome(state=state, reason=str(reason))


_CONTENT_OF: Mapping[_Name, frozenset[str]] = {
    "payload": frozenset({"payload", "payload_base64", "ref"}),
    "output": frozenset({"output", "output_base64", "ref"}),
}


def _read_content(data: Mapping[str, Any], name: _Name) -> Content:
    given = _CONTENT_OF[name] & data.keys()
    _require(len(given) == 1, WRONG_CONTENT)
    codec, sha256 = data.get("codec", _IDENTITY), data.get("sha256")
    _require(isinstance(codec, str) and _WORD.fullmatch(codec) is not None, WRONG_CONTENT)
    _require(isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None, WRONG_CONTENT)
    [form] = given
    if form == "ref":
        _require(_is_text(data["ref"]), WRONG_CONTENT)
        return Content(sha256=str(sha256), ref=data["ref"], codec=codec)
    inline = _as_json(data[name]) if form == name else _from_base64(data[form])
    if codec == _IDENTITY:
        _require(hashlib.sha256(inline).hexdigest() == sha256, WRONG_HASH)
    return Content(sha256=str(sha256), inline=inline, codec=codec)


def _as_json(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # deeper than it can be written
        raise UndecodableMessageError(WRONG_CONTENT) from None


def _from_base64(text: object) -> bytes:
    _require(isinstance(text, str), WRONG_CONTENT)
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise UndecodableMessageError(WRONG_CONTENT) from None


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_text(value: object) -> bool:
    """No NUL: PostgreSQL's text has none, and one message would keep a whole batch from being stored."""
    return isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS and "\0" not in value


def _require(right: bool, reason: str) -> None:
    if not right:
        raise UndecodableMessageError(reason)
