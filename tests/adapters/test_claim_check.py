"""Outputs put aside: what is referred to is what is found, and a reference says nothing about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.claim_check import load_output, safe_segment, store_output
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.exceptions import ClaimCheckError, SpecError
from tests.support import ministack
from tests.support.ministack import MiniStack

PLACE = ("triage", "scheduled__2026-03-01T00:00:00+00:00", "group.call", "-1")
OUTPUTS = [None, {"priority": "urgent"}, [{"x": 1.5}, {"x": None}], "text", 0, {"ä": "€"}]


def answer_with(reference: dict[str, Any]) -> dict[str, Any]:
    return {"degraded": False, "output_ref": reference}


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_is_stored_is_loaded(output: Any, tmp_path: Path) -> None:
    """Any plain JSON value."""
    reference = store_output(output, str(tmp_path), PLACE)
    assert load_output(answer_with(reference)) == output
    path = Path(reference["uri"])
    assert path.is_relative_to(tmp_path / "triage")
    assert path.stat().st_size == reference["bytes"]


def test_an_answer_that_holds_its_output_gives_it() -> None:
    """So a task downstream needs not know which of the two it is."""
    assert load_output({"output": {"a": 1}, "degraded": False}) == {"a": 1}


def test_the_checksum_does_not_give_an_output_away(tmp_path: Path) -> None:
    """The same output twice has two of them: an output with few values cannot be guessed from XCom."""
    first, second = (store_output({"malignant": True}, str(tmp_path), PLACE) for _ in range(2))
    assert first["uri"] == second["uri"]
    assert first["sha256"] != second["sha256"]


@pytest.mark.real
def test_on_s3_too(ministack_server: MiniStack) -> None:
    """Through the same file system as everything else."""
    options = StorageOptions(
        access_key=ministack.ACCESS_KEY,
        secret_key=ministack.SECRET_KEY,
        region=ministack.REGION,
        endpoint_url=ministack_server.url,
    )
    bucket = ministack_server.make_bucket()
    reference = store_output({"a": 1}, f"s3://{bucket}/outputs/", PLACE, options=options)
    assert reference["uri"].startswith(f"s3://{bucket}/outputs/triage/scheduled__2026-03-01T")
    assert load_output(answer_with(reference), options=options) == {"a": 1}


@pytest.mark.parametrize("damage", [b"", b'{"output": 1}'])
def test_another_content_is_refused(damage: bytes, tmp_path: Path) -> None:
    """Torn, or overwritten by a later try."""
    reference = store_output({"a": 1}, str(tmp_path), PLACE)
    Path(reference["uri"]).write_bytes(damage)
    with pytest.raises(ClaimCheckError, match="is not the one that was stored"):
        load_output(answer_with(reference))


def test_an_output_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """With what to do."""
    reference = store_output({"a": 1}, str(tmp_path), PLACE)
    Path(reference["uri"]).unlink()
    with pytest.raises(ClaimCheckError, match=r"is not there: clear the task that called"):
        load_output(answer_with(reference))


def test_a_storage_that_refuses_is_an_error_without_the_output(tmp_path: Path) -> None:
    """The message names the place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ClaimCheckError, match=r"cannot be stored at .*Not a directory") as refused:
        store_output({"secret": "PHI-1"}, str(tmp_path / "file"), PLACE)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)


@pytest.mark.parametrize("uri", ["", " ", None])
def test_a_folder_must_be_named(uri: Any) -> None:
    """A template may have rendered to nothing."""
    with pytest.raises(SpecError, match="output_uri must be a folder"):
        store_output({}, uri, PLACE)


def test_bytes_pass_through_the_codec(tmp_path: Path) -> None:
    """Which is told what they are; encryption comes by it."""

    class Reversed:
        name = "reversed"
        contexts: list[Mapping[str, str]]

        def __init__(self) -> None:
            self.contexts = []

        def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
            self.contexts.append(context)
            return data[::-1]

        decode = encode

    codec = Reversed()
    reference = store_output({"a": 1}, str(tmp_path), PLACE, codec=codec)
    with pytest.raises(json.JSONDecodeError):
        json.loads(Path(reference["uri"]).read_bytes())
    assert load_output(answer_with(reference), codec=codec) == {"a": 1}
    assert codec.contexts == [{"what": "output", "uri": reference["uri"]}] * 2


@pytest.mark.parametrize("name", ["triage", "group.call", "-1", "a=b_c"])
def test_a_plain_name_is_its_own_segment(name: str) -> None:
    """So that a person finds it."""
    assert safe_segment(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "manual__2026-03-01T00:00:00+00:00", ".hidden", "x" * 200]
)
def test_any_other_name_becomes_a_safe_one(name: str) -> None:
    """Never out of the folder, never the same for two names."""
    segment = safe_segment(name)
    assert segment not in ("", ".", "..")
    assert not set(segment) & set("/:+\\ ")
    assert not segment.startswith(".")
    assert len(segment) <= 90
    assert segment != safe_segment(name + "x")
