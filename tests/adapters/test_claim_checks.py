"""Claim checks come back as they were stored; what is not ours, or not whole, is refused in words without data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck, StoredClaimChecks
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.config import StorageOptions
from airflow_provider_ai.core.job_ports import ClaimChecks
from airflow_provider_ai.core.jobs import Content
from airflow_provider_ai.core.messages import LARGEST_INLINE_BYTES
from airflow_provider_ai.exceptions import ClaimCheckError, ClaimCheckUnavailableError, SpecError
from airflow_provider_ai.testing import InMemoryClaimChecks
from tests.support.ministack import ACCESS_KEY, REGION, SECRET_KEY

CANARY = b"canary-4711"


def s3_options(url: str) -> StorageOptions:
    return StorageOptions(access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_url=url)


@pytest.fixture(params=["memory", "local", pytest.param("s3", marks=pytest.mark.real)])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> ClaimChecks:
    """The three kinds; the folder is not there yet."""
    if request.param == "memory":
        return InMemoryClaimChecks()
    if request.param == "local":
        return StoredClaimChecks(f"{tmp_path}/claims")
    server, bucket = request.getfixturevalue("ministack_server"), request.getfixturevalue("bucket")
    return StoredClaimChecks(f"s3://{bucket}/claims/", s3_options(server.url))


# --- for each kind


@pytest.mark.parametrize("data", [b"", b"{}", bytes(range(256)) * 8_192])
def test_bytes_come_back(claims: ClaimChecks, data: bytes) -> None:
    """Empty, small, and two mebibytes."""
    assert claims.get(claims.put("payload/x-1", data)) == data


def test_the_same_name_again(claims: ClaimChecks) -> None:
    """The same reference, and the bytes of the last one."""
    assert claims.put("payload/x", b"1") == claims.put("payload/x", b"2")
    assert claims.get(claims.put("payload/y", b"3")) == b"3"
    assert claims.get(claims.put("payload/x", b"4")) == b"4"


def test_what_was_deleted_is_gone(claims: ClaimChecks) -> None:
    """Deleting it again is no error."""
    kept, gone = claims.put("result/kept", b"1"), claims.put("result/gone", b"2")
    for _ in range(2):
        claims.delete([gone])
    with pytest.raises(ClaimCheckError, match="not there") as caught:
        claims.get(gone)
    assert not isinstance(caught.value, ClaimCheckUnavailableError)
    assert claims.get(kept) == b"1"


def test_references_to_elsewhere(claims: ClaimChecks, tmp_path: Path) -> None:
    """A message that names any other file or bucket gets nothing read and nothing deleted."""
    secret = tmp_path / "secret"
    secret.write_bytes(CANARY)
    mine = claims.put("payload/x", b"1")
    root = mine.removesuffix("payload/x")
    for ref in (
        str(secret),
        f"{root}../secret",
        f"{root}payload/../../secret",
        f"file://{secret}",
        "s3://b/k",
        "",
        root,
    ):
        for touch in (claims.get, lambda ref: claims.delete([ref])):
            try:
                touch(ref)
            except ClaimCheckError:
                continue
            assert isinstance(claims, InMemoryClaimChecks)
    assert secret.read_bytes() == CANARY


# --- folders


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A retry may help: the disk may have room again."""
    (tmp_path / "file").write_bytes(b"")
    claims = StoredClaimChecks(f"{tmp_path}/file")
    for touch in (lambda: claims.put("payload/x", CANARY), lambda: claims.get(f"{tmp_path}/file/payload/x")):
        with pytest.raises(ClaimCheckUnavailableError, match="Not a directory") as caught:
            touch()
        assert CANARY.decode() not in str(caught.value)


def test_nothing_unfinished_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object is there whole, or not at all."""
    claims = StoredClaimChecks(str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ClaimCheckUnavailableError, match="No space left"):
        claims.put("payload/x", CANARY)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_ways_to_name_a_folder(form: str, tmp_path: Path) -> None:
    """They are the same one: what the submitter has stored, the worker reads."""
    ref = StoredClaimChecks(str(tmp_path)).put("payload/x", b"1")
    assert StoredClaimChecks(form.format(tmp_path)).get(ref) == b"1"


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """References are absolute."""
    monkeypatch.chdir(tmp_path)
    ref = StoredClaimChecks("claims/").put("payload/x", b"1")
    assert ref == f"{tmp_path}/claims/payload/x"
    monkeypatch.chdir("/")
    assert StoredClaimChecks(f"{tmp_path}/claims").get(ref) == b"1"


@pytest.mark.parametrize("uri", ["", "  ", "gs://bucket", "s3://"])
def test_what_is_no_folder(uri: str) -> None:
    """Refused before anything is written."""
    with pytest.raises(SpecError):
        StoredClaimChecks(uri)


@pytest.mark.parametrize("name", ["", "/x", "../x", "a/../b", "a//b", ".hidden", "a b", "ü"])
def test_names_that_could_leave_the_folder(name: str, tmp_path: Path) -> None:
    """Refused, though they are made in this package."""
    with pytest.raises(SpecError):
        StoredClaimChecks(str(tmp_path / "claims")).put(name, b"")


# --- inline or not


class Doubling(IdentityCodec):
    """A codec that makes more of it, and notices another context."""

    name = "doubling"

    def encode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        return repr(sorted(context.items())).encode() + b"|" + data + data

    def decode(self, data: bytes, *, context: Mapping[str, str]) -> bytes:
        head, _, body = data.partition(b"|")
        if head != repr(sorted(context.items())).encode():
            raise ValueError(f"wrong context for {data!r}")
        return body[: len(body) // 2]


@pytest.mark.parametrize("size", [0, 1, 64])
def test_small_ones_are_inline(claims: ClaimChecks, size: int) -> None:
    """Up to the limit, which counts; nothing is stored."""
    contents = InlineOrClaimCheck(claims, inline_limit_bytes=64)
    data = b"x" * size
    packed = contents.pack(data, kind="payload", job_id="j")
    assert packed == Content(sha256=hashlib.sha256(data).hexdigest(), inline=data)
    assert contents.unpack(packed, kind="payload", job_id="j") == data


def test_large_ones_are_behind_a_claim_check(claims: ClaimChecks) -> None:
    """One byte more. Another attempt has the same reference, another result another one."""
    contents = InlineOrClaimCheck(claims, inline_limit_bytes=64)
    packed = contents.pack(b"x" * 65, kind="result", job_id="j")
    assert packed.inline is None
    assert packed == contents.pack(b"x" * 65, kind="result", job_id="j")
    zombie = contents.pack(b"y" * 65, kind="result", job_id="j")
    assert zombie.ref != packed.ref
    assert contents.unpack(packed, kind="result", job_id="j") == b"x" * 65


def test_the_limit_is_on_what_is_sent(claims: ClaimChecks) -> None:
    """That is, after the codec; the hash is of what was before it."""
    contents = InlineOrClaimCheck(claims, codec=Doubling(), inline_limit_bytes=1_000)
    small, large = (contents.pack(b"x" * size, kind="payload", job_id="j") for size in (400, 500))
    assert (small.ref, large.inline) == (None, None)
    assert small.codec == large.codec == "doubling"
    assert small.sha256 == hashlib.sha256(b"x" * 400).hexdigest()
    for packed, size in ((small, 400), (large, 500)):
        assert contents.unpack(packed, kind="payload", job_id="j") == b"x" * size


def test_a_successor_reads_the_payload_of_its_predecessor() -> None:
    """A redriven job has the same payload under another id, and says which job it was first; another job has not."""
    contents = InlineOrClaimCheck(InMemoryClaimChecks(), codec=Doubling(), inline_limit_bytes=0)
    packed = contents.pack(CANARY, kind="payload", job_id="first", origin="first")
    assert contents.unpack(packed, kind="payload", job_id="second", origin="first") == CANARY
    with pytest.raises(ClaimCheckError, match="cannot be decoded"):
        contents.unpack(packed, kind="payload", job_id="second", origin="another")


def refused(contents: InlineOrClaimCheck, content: Content, kind: str = "payload") -> str:
    with pytest.raises(ClaimCheckError) as caught:
        contents.unpack(content, kind=kind, job_id="j")
    assert CANARY.decode() not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_changed_content_is_noticed() -> None:
    """Whoever changed it, in the message or where it was stored."""
    claims = InMemoryClaimChecks()
    plain = InlineOrClaimCheck(claims, inline_limit_bytes=20)
    packed = plain.pack(CANARY, kind="payload", job_id="j")
    assert "not the one that was packed" in refused(plain, replace(packed, inline=CANARY + b"!"))
    large = plain.pack(CANARY * 2, kind="payload", job_id="j")
    claims.objects[str(large.ref)] = CANARY
    assert "not the one that was packed" in refused(plain, large)


def test_content_in_another_place_is_noticed() -> None:
    """A payload is no result, and one codec is not another."""
    coded, plain = InlineOrClaimCheck(None, codec=Doubling()), InlineOrClaimCheck(None)
    packed = coded.pack(CANARY, kind="payload", job_id="j")
    assert "cannot be decoded (ValueError)" in refused(coded, packed, kind="result")
    assert "through codec 'doubling', not 'identity'" in refused(plain, packed)


def test_no_claim_checks_are_set() -> None:
    """What would need one says so, when it is packed and when it is read."""
    contents = InlineOrClaimCheck(None, inline_limit_bytes=10)
    with pytest.raises(ClaimCheckError, match=r"too large for a message \(10 bytes\): set a claim check uri"):
        contents.pack(CANARY, kind="payload", job_id="j")
    assert "set the claim check uri" in refused(contents, Content(sha256="0" * 64, ref="s3://b/k"))


def test_a_storage_that_is_down() -> None:
    """Is told from an object that is gone."""
    claims = InMemoryClaimChecks()
    contents = InlineOrClaimCheck(claims, inline_limit_bytes=0)
    packed = contents.pack(CANARY, kind="payload", job_id="j")
    claims.available = False
    with pytest.raises(ClaimCheckUnavailableError):
        contents.unpack(packed, kind="payload", job_id="j")


@pytest.mark.parametrize("limit", [-1, True, 1.5, LARGEST_INLINE_BYTES + 1])
def test_limits_no_message_holds(limit: object) -> None:
    """Refused where they are set."""
    with pytest.raises(SpecError, match=r"inline_limit_bytes must be an integer in \[0, \d+\]"):
        InlineOrClaimCheck(None, inline_limit_bytes=limit)  # type: ignore[arg-type]
