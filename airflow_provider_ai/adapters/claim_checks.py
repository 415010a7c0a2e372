"""Payloads and results of jobs: inline while they are small, else behind a claim check in a folder or a bucket.

An object is written whole or not at all, under a name that holds the job's id and the hash of its bytes: writing it
again is harmless, and a worker that lost its job cannot put its result in place of the one that was recorded. A
reference is read and deleted only below the folder of this deployment, for messages may come from anyone.

What the codec binds bytes to is their kind, their hash and their job. A payload moves on to the later generations of
its job, so it is bound to the first of them. Under a codec that encrypts, the hash is keyed: a plain one of a payload
with few possible values would say what it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from airflow_provider_ai.adapters.checkpoints.local_storage import LocalStorage
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.filesystems import local_path, open_filesystem
from airflow_provider_ai.core.config import StorageOptions, is_whole, require
from airflow_provider_ai.core.job_ports import ClaimChecks
from airflow_provider_ai.core.jobs import Content
from airflow_provider_ai.core.messages import LARGEST_INLINE_BYTES, fits_inline
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.purposes import of_job
from airflow_provider_ai.exceptions import CiphertextError, ClaimCheckError, ClaimCheckUnavailableError, KeyAccessError

INLINE_LIMIT_BYTES = 65_536
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_HASH_DIGITS = 16
_IDENTITY = IdentityCodec()


class StoredClaimChecks:
    """Claim checks below a folder. Thread-safe.

    :param uri: folder: local path, ``file://`` or ``s3://``. All who share the references must name the same one
    """

    def __init__(self, uri: str, options: StorageOptions | None = None) -> None:
        require(
            isinstance(uri, str) and bool(uri.strip()), "the claim check uri must be a folder: a path or a URI", uri
        )
        path = local_path(uri)
        if path is not None:
            self._storage: CheckpointStorage = LocalStorage(Path(path))
            self._root = f"{path}/"
            return
        from airflow_provider_ai.adapters.checkpoints.object_storage import ObjectStorage  # a third of a start

        filesystem, path = open_filesystem(uri, options)
        self._storage = ObjectStorage(filesystem, path)
        self._root = f"s3://{path}/"

    def put(self, name: str, data: bytes) -> str:
        """Store bytes; their URI. Writing the same name again is harmless.

        :param name: letters, digits, ``-``, ``_``, ``.``, and ``/`` between folders
        """
        require(_NAME.fullmatch(name) is not None, "the name of a claim check must be a plain relative path", name)
        try:
            self._storage.write(name, data)
        except OSError as error:
            raise self._unavailable("stored", error) from None
        return f"{self._root}{name}"

    def get(self, ref: str) -> bytes:
        """The bytes behind a URI that :meth:`put` gave.

        :raises ClaimCheckUnavailableError: when they cannot be read now
        :raises ClaimCheckError: when they are gone, or the URI is none of this folder
        """
        name = self._name_in(ref)
        try:
            data = self._storage.read(name)
        except OSError as error:
            raise self._unavailable("read", error) from None
        if data is None:
            raise ClaimCheckError(f"{self._root}: an object is not there any more; a retry cannot help")
        return data

    def delete(self, refs: Iterable[str]) -> None:
        """Remove objects; absent ones are no error, but those of other folders are."""
        for ref in refs:
            try:
                self._storage.delete(self._name_in(ref))
            except OSError as error:
                raise self._unavailable("removed", error) from None

    def _name_in(self, ref: str) -> str:
        name = ref.removeprefix(self._root)
        if name == ref or _NAME.fullmatch(name) is None:
            raise ClaimCheckError(
                f"{self._root}: a reference is not below this folder: is the same one set everywhere?"
            )
        return name

    def _unavailable(self, what: str, error: OSError) -> ClaimCheckUnavailableError:
        said = error.strerror or type(error).__name__
        return ClaimCheckUnavailableError(f"{self._root}: an object cannot be {what} ({said}); a retry may help")


class InlineOrClaimCheck:
    """The :class:`~airflow_provider_ai.core.job_ports.ContentCodec`. Thread-safe if its parts are.

    :param claims: where larger ones go; ``None`` for nowhere
    :param inline_limit_bytes: what travels in messages and stands in the store, after the codec
    """

    def __init__(
        self,
        claims: ClaimChecks | None,
        *,
        codec: Codec = _IDENTITY,
        inline_limit_bytes: int = INLINE_LIMIT_BYTES,
    ) -> None:
        right = is_whole(inline_limit_bytes, 0) and inline_limit_bytes <= LARGEST_INLINE_BYTES
        limits = f"inline_limit_bytes must be an integer in [0, {LARGEST_INLINE_BYTES}] (what a message holds)"
        require(right, limits, inline_limit_bytes)
        self._claims = claims
        self._codec = codec
        self._limit = inline_limit_bytes

    def prepare(self, kind: str) -> None:
        """See that content of this kind can be packed, as far as keys are concerned.

        :raises EncryptionError: when it cannot
        """
        self._codec.prepare(of_job(kind))

    def pack(self, data: bytes, *, kind: str, job_id: str, origin: str | None = None) -> Content:
        """Bytes as content.

        :param kind: ``payload`` or ``result``
        :param origin: the first generation of the job, for what later ones take over; else the job itself
        :raises ClaimCheckError: when they are too large to be inline and cannot be stored
        :raises KeyAccessError: when the key cannot be used
        """
        sha256 = self._codec.digest(data)
        encoded = self._codec.encode(data, context=_context(kind, sha256, origin or job_id))
        if fits_inline(encoded, limit=self._limit):
            return Content(sha256=sha256, inline=encoded, codec=self._codec.name)
        if self._claims is None:
            raise ClaimCheckError(
                f"a {kind} of {len(data)} bytes is too large for a message ({self._limit} bytes): set a claim check uri"
            )
        ref = self._claims.put(f"{kind}/{job_id}-{sha256[:_HASH_DIGITS]}", encoded)
        return Content(sha256=sha256, ref=ref, codec=self._codec.name)

    def unpack(self, content: Content, *, kind: str, job_id: str, origin: str | None = None) -> bytes:
        """The bytes, checked against the hash.

        :raises ClaimCheckUnavailableError: when they cannot be read now
        :raises ClaimCheckError: when they are gone, or not those that were packed
        :raises KeyAccessError: when the key cannot be used
        """
        if content.codec != self._codec.name:
            raise ClaimCheckError(
                f"the {kind} of job {job_id} was written through codec {content.codec!r}, not {self._codec.name!r}: "
                "use the same one everywhere"
            )
        context = _context(kind, content.sha256, origin or job_id)
        data = self._decoded(self._encoded(content, kind, job_id), context, f"the {kind} of job {job_id}")
        if self._codec.digest(data) != content.sha256:
            raise ClaimCheckError(f"the {kind} of job {job_id} is not the one that was packed; a retry cannot help")
        return data

    def _encoded(self, content: Content, kind: str, job_id: str) -> bytes:
        if content.inline is not None:
            return content.inline
        if content.ref is None or self._claims is None:
            raise ClaimCheckError(f"the {kind} of job {job_id} is behind a claim check: set the claim check uri")
        return self._claims.get(content.ref)

    def _decoded(self, encoded: bytes, context: Mapping[str, str], which: str) -> bytes:
        try:
            return self._codec.decode(encoded, context=context)
        except KeyAccessError:
            raise
        except CiphertextError as error:
            said = str(error)
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, and its text may quote the data
            said = type(error).__name__
        raise ClaimCheckError(f"{which} cannot be decoded ({said}); a retry cannot help")


def _context(kind: str, sha256: str, origin: str) -> Mapping[str, str]:
    return {"what": of_job(kind), "job": origin, "sha256": sha256}
