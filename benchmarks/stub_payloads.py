"""The model behind the stub: request bodies to record ids, record ids to response bodies. No sockets, no clock.

The prediction is a function of the record id alone, so a test can tell a right answer from a misdelivered one without
asking the server. Protocols that carry no record id get one from what they do carry: Open Inference from the tensor
named `id` or else from the integer part of the first column; prompts from `id=…` in their text, or else a checksum of
it.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import orjson

from benchmarks.stub_counters import RecordId
from benchmarks.stub_faults import OUTPUT_FAULTS, Rule, number_of

PROTOCOLS = ("auto", "json", "open-inference", "openai-chat", "openai-embeddings")
DIMENSIONS = 8
_ID_IN_TEXT = re.compile(r"\bid[=:]\s*([\w-]+)")
_UNKNOWN = 999_999_999


class BadRequest(ValueError):
    """The body is not what the protocol asks for; a client error."""


class Call:
    """One parsed request: its protocol, its record ids in order, and the document it came from."""

    __slots__ = ("document", "ids", "model", "protocol")

    def __init__(self, protocol: str, model: str, ids: list[RecordId], document: dict[str, Any]) -> None:
        self.protocol = protocol
        self.model = model
        self.ids = ids
        self.document = document


def score_of(key: RecordId) -> float:
    """The score the stub gives a record: four decimals in [0, 1), the same in every protocol."""
    number = key if type(key) is int else number_of(key)
    return (number * 2_654_435_761 & 0xFFFFFFFF) // 429_497 / 10_000


def label_of(key: RecordId) -> str:
    """The label that goes with `score_of`: `high` from one half on, else `low`."""
    return "high" if score_of(key) >= 0.5 else "low"


def parse(path: str, body: bytes, protocol: str = "auto") -> Call:
    """Read one request body. Raises BadRequest when it does not fit the protocol."""
    try:
        document = orjson.loads(body)
        kind = protocol if protocol != "auto" else _protocol_of(path, document)
        return _PARSERS[kind](path, document)
    except BadRequest:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadRequest(f"the body does not fit the protocol ({type(error).__name__})") from None


def respond(call: Call, fault: Rule | None = None) -> bytes:
    """The 200 body for a call, with the output fault applied to the records it strikes."""
    if fault is None or fault.do not in OUTPUT_FAULTS:
        return orjson.dumps(_BUILDERS[call.protocol](call, "", frozenset()))
    struck = frozenset(at for at, key in enumerate(call.ids) if fault.hits(key)) if fault.names_records else {0}
    return orjson.dumps(_BUILDERS[call.protocol](call, fault.do, frozenset(struck)))


def _protocol_of(path: str, document: dict[str, Any]) -> str:
    if path.endswith("/infer"):
        return "open-inference"
    if path.endswith("/chat/completions") or "messages" in document:
        return "openai-chat"
    if path.endswith("/embeddings") or "input" in document:
        return "openai-embeddings"
    return "json"


def _parse_json(_path: str, document: dict[str, Any]) -> Call:
    return Call("json", document.get("model", ""), [item["id"] for item in document["inputs"]], document)


def _parse_open_inference(path: str, document: dict[str, Any]) -> Call:
    tensors = document["inputs"]
    named = next((tensor for tensor in tensors if tensor["name"] == "id"), None)
    tensor = named or tensors[0]
    rows = tensor["shape"][0]
    values = tensor["data"]
    if values and isinstance(values[0], list):
        values = [row[0] for row in values]
    elif rows and len(values) != rows:
        values = values[:: len(values) // rows]
    if len(values) != rows:
        raise BadRequest(f"shape says {rows} rows, data has {len(values)}")
    ids: list[RecordId] = [value if isinstance(value, str) else int(value) for value in values]
    model = path.split("/models/", 1)[-1].split("/", 1)[0]
    return Call("open-inference", model, ids, document)


def _parse_chat(_path: str, document: dict[str, Any]) -> Call:
    text = next(str(m["content"]) for m in reversed(document["messages"]) if m["role"] == "user")
    return Call("openai-chat", document.get("model", ""), [_id_in(text)], document)


def _parse_embeddings(_path: str, document: dict[str, Any]) -> Call:
    texts = document["input"]
    texts = [texts] if isinstance(texts, str) else texts
    return Call("openai-embeddings", document.get("model", ""), [_id_in(text) for text in texts], document)


def _id_in(text: str) -> RecordId:
    found = _ID_IN_TEXT.search(text)
    if found is None:
        return zlib.crc32(text.encode())
    return int(found[1]) if found[1].isdecimal() else found[1]


def _record(key: RecordId) -> dict[str, Any]:
    score = score_of(key)
    return {"id": key, "score": score, "label": "high" if score >= 0.5 else "low"}


def _struck(at: int, item: dict[str, Any], fault: str, name: str, value: Any, wrong: str) -> list[dict[str, Any]]:
    if fault == "missing":
        return []
    if fault == "duplicate":
        return [item, item]
    return [item | ({name: value} if fault == "unknown" else {wrong: "not a number"})]


def _build_json(call: Call, fault: str, struck: frozenset[int]) -> dict[str, Any]:
    if not fault:
        return {"outputs": [_record(key) for key in call.ids]}
    outputs: list[dict[str, Any]] = []
    for at, key in enumerate(call.ids):
        item = _record(key)
        stranger: RecordId = _UNKNOWN + at if isinstance(key, int) else f"unknown-{at}"
        outputs += _struck(at, item, fault, "id", stranger, "score") if at in struck else [item]
    return {"outputs": outputs}


def _build_open_inference(call: Call, fault: str, struck: frozenset[int]) -> dict[str, Any]:
    keys: list[RecordId] = []
    for at, key in enumerate(call.ids):
        copies = {"missing": 0, "duplicate": 2, "unknown": 2}.get(fault, 1) if at in struck else 1
        keys += [key] * copies
    scores: list[Any] = [score_of(key) for key in keys]
    if fault == "wrong_type":
        scores = ["not a number" if at in struck else score for at, score in enumerate(scores)]
    shape = [len(keys)]
    outputs = [
        {"name": "score", "shape": shape, "datatype": "FP64", "data": scores},
        {"name": "label", "shape": shape, "datatype": "BYTES", "data": [label_of(key) for key in keys]},
    ]
    answer = {"model_name": call.model, "model_version": "1", "outputs": outputs}
    return answer | {"id": call.document["id"]} if "id" in call.document else answer


def _build_chat(call: Call, fault: str, struck: frozenset[int]) -> dict[str, Any]:
    key = call.ids[0]
    content: dict[str, Any] = {"score": score_of(key), "label": label_of(key)}
    if fault == "wrong_type":
        content["score"] = "not a number"
    if fault == "unknown":
        content["unknown"] = True
    text = orjson.dumps(content).decode() * (2 if fault == "duplicate" else 1)
    message = {"role": "assistant", "content": text}
    choices = [] if fault == "missing" else [{"index": 0, "message": message, "finish_reason": "stop"}]
    asked = sum(_tokens(str(m["content"])) for m in call.document["messages"])
    said = _tokens(text)
    return {
        "id": f"chatcmpl-{zlib.crc32(str(key).encode()):08x}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": call.model,
        "choices": choices,
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def _build_embeddings(call: Call, fault: str, struck: frozenset[int]) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for at, key in enumerate(call.ids):
        score = score_of(key)
        vector = [round((score + axis / DIMENSIONS) % 1.0, 4) for axis in range(DIMENSIONS)]
        item = {"object": "embedding", "index": at, "embedding": vector}
        data += _struck(at, item, fault, "index", _UNKNOWN, "embedding") if at in struck else [item]
    texts = call.document["input"]
    asked = sum(_tokens(text) for text in ([texts] if isinstance(texts, str) else texts))
    usage = {"prompt_tokens": asked, "total_tokens": asked}
    return {"object": "list", "data": data, "model": call.model, "usage": usage}


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


_PARSERS = {
    "json": _parse_json,
    "open-inference": _parse_open_inference,
    "openai-chat": _parse_chat,
    "openai-embeddings": _parse_embeddings,
}
_BUILDERS = {
    "json": _build_json,
    "open-inference": _build_open_inference,
    "openai-chat": _build_chat,
    "openai-embeddings": _build_embeddings,
}
