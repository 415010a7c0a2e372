"""Claim check: an output is put where only its users can read it, and a reference travels in its place.

The reference, ``{"uri", "sha256", "bytes"}``, says nothing about the output: the checksum is over the bytes as stored,
and these hold 128 random bits, so that an output with few possible values cannot be guessed from it. A second store
under the same place replaces the first, whole or not at all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from airflow_provider_ai.adapters.checkpoints.plans import open_storage
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.config import StorageOptions, require
from airflow_provider_ai.core.identity import digest
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.purposes import OUTPUT
from airflow_provider_ai.exceptions import ClaimCheckError

_NAME = "output.json"
_OTHER_CHARACTERS = re.compile(r"[^A-Za-z0-9._=-]+")
_LONGEST_SEGMENT = 80
_IDENTITY = IdentityCodec()


def store_output(
    output: Any,
    uri: str,
    place: Sequence[str],
    *,
    options: StorageOptions | None = None,
    codec: Codec = _IDENTITY,
) -> dict[str, Any]:
    """Store plain JSON below ``uri`` and return its reference.

    :param uri: folder: local path, ``file://`` or ``s3://``
    :param place: names it below the folder, such as DAG, run, task and map index; the same place is the same file
    :raises ClaimCheckError: when the storage refuses it
    """
    require(isinstance(uri, str) and bool(uri.strip()), "output_uri must be a folder: a path or a URI", uri)
    folder = "/".join([uri.rstrip("/"), *map(safe_segment, place)])
    where = f"{folder}/{_NAME}"
    document = orjson.dumps({"output": output, "salt": secrets.token_hex(16)})
    data = codec.encode(document, context=_context(where))
    try:
        open_storage(folder, options).write(_NAME, data)
    except OSError as error:
        failure = ClaimCheckError(f"the output cannot be stored at {where} ({_said(error)}); a retry calls again")
    else:
        return {"uri": where, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    raise failure


def load_output(answer: Mapping[str, Any], *, options: StorageOptions | None = None, codec: Codec = _IDENTITY) -> Any:
    """The output of an answer (:meth:`Answer.to_dict`), from wherever it lies.

    :raises ClaimCheckError: when what lies there is not what was stored
    """
    if "output_ref" not in answer:
        return answer["output"]
    reference = answer["output_ref"]
    uri = reference["uri"]
    folder, _, name = uri.rpartition("/")
    try:
        data = open_storage(folder, options).read(name)
    except OSError as error:
        raise ClaimCheckError(f"the output at {uri} cannot be read ({_said(error)}); a retry may help") from None
    if data is None or hashlib.sha256(data).hexdigest() != reference["sha256"]:
        what = "is not there" if data is None else "is not the one that was stored"
        raise ClaimCheckError(f"the output at {uri} {what}: clear the task that called, which stores it again")
    return orjson.loads(codec.decode(data, context=_context(uri)))["output"]


def safe_segment(name: str) -> str:
    """``name`` as one segment of a path or URI, distinct for distinct names."""
    slug = _OTHER_CHARACTERS.sub("-", name)[:_LONGEST_SEGMENT].lstrip(".")
    return slug if slug == name and slug else f"{slug}-{digest('segment', name, length=8)}"


def _context(uri: str) -> Mapping[str, str]:
    return {"what": OUTPUT, "uri": uri}


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__
