"""Where plans live below the checkpoint URI, and which pass over a plan is current.

::

    plans/{run}.json                  pointer of a run: which checkpoint key, whether it was completed
    {key}/manifest.json               the plan, immutable
    {key}/pass.json                   current epoch and round
    {key}/e{epoch}/p{partition}/      logs, segments and seal of one partition

``recompute`` opens a new epoch, an empty set of folders; ``retry_failed`` a new round, in which records quarantined in
earlier rounds are called again. ``resume`` goes on with the current ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from airflow_provider_ai.adapters.checkpoints.documents import from_document, to_document
from airflow_provider_ai.adapters.checkpoints.local_storage import LocalStorage
from airflow_provider_ai.adapters.checkpoints.object_storage import ObjectStorage
from airflow_provider_ai.adapters.checkpoints.partition_files import PartitionFiles
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.adapters.filesystems import open_filesystem
from airflow_provider_ai.core.config import StorageOptions, Verb
from airflow_provider_ai.core.manifest import Manifest
from airflow_provider_ai.core.ports import Codec
from airflow_provider_ai.core.purposes import CHECKPOINT
from airflow_provider_ai.core.report import PlanReference
from airflow_provider_ai.exceptions import CiphertextError, CorruptCheckpointError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPointer:
    """The plan a run has made. ``listing``: digest of the input files as they were planned."""

    key: str
    fingerprint: str
    listing: str
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """An epoch and a round within it, both counted from 0."""

    epoch: int = 0
    round: int = 0

    def after(self, verb: Verb) -> Pass:
        """The pass that a verb asks for."""
        if verb == "recompute":
            return Pass(epoch=self.epoch + 1)
        return replace(self, round=self.round + 1) if verb == "retry_failed" else self


class PlanStore:
    """The checkpoint URI, opened."""

    def __init__(self, storage: CheckpointStorage, codec: Codec, *, uri: str) -> None:
        self._storage = storage
        self._codec = codec
        self._uri = uri.rstrip("/")

    def directory(self, key: str) -> str:
        """The URI of a key's folder."""
        return f"{self._uri}/{key}"

    def pointer(self, run: str) -> PlanPointer | None:
        """What a run has planned, or None."""
        data = self._storage.folder("plans").read(f"{run}.json")
        remedy = "planning an unchanged input again finds the same checkpoints, and nothing is lost"
        return None if data is None else _load(PlanPointer, data, f"{self._uri}/plans/{run}.json", remedy)

    def point(self, run: str, pointer: PlanPointer) -> None:
        """Remember what a run has planned."""
        self._storage.folder("plans").write(f"{run}.json", to_document(asdict(pointer)))

    def manifest(self, key: str, *, fingerprint: str) -> Manifest | None:
        """The plan of a key, which must have this fingerprint; None when it was never written."""
        data = self._storage.folder(key).read("manifest.json")
        if data is None:
            return None
        stored = self._decoded(data, key)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            manifest = Manifest.from_json(stored)
            if manifest.fingerprint == fingerprint:
                return manifest
        raise CorruptCheckpointError(
            f"{self.directory(key)}/manifest.json is damaged. Restore it, or delete it and plan again: an unchanged "
            "input gives the same plan, and nothing is lost"
        )

    def save_manifest(self, key: str, manifest: Manifest) -> None:
        """Write the plan, once: a second call with the same key changes nothing."""
        folder = self._storage.folder(key)
        if folder.read("manifest.json") is None:
            folder.write("manifest.json", self._codec.encode(manifest.to_json(), context=_context(key)))

    def current_pass(self, key: str) -> Pass:
        """The pass a resume goes on with."""
        data = self._storage.folder(key).read("pass.json")
        remedy = "the first pass over the plan is then current again; later recomputes and retries are forgotten"
        return Pass() if data is None else _load(Pass, data, f"{self.directory(key)}/pass.json", remedy)

    def begin(self, key: str, verb: Verb) -> Pass:
        """The pass that ``verb`` opens, made current."""
        current = self.current_pass(key)
        wanted = current.after(verb)
        if wanted != current:
            self._storage.folder(key).write("pass.json", to_document(asdict(wanted)))
        return wanted

    def files(self, plan: PlanReference, index: int) -> PartitionFiles:
        """The blobs of one partition in the plan's epoch."""
        key = key_of(plan)
        name = f"e{plan.epoch:03d}/p{index:05d}"
        storage = self._storage.folder(key).folder(name)
        return PartitionFiles(storage, self._codec, where=f"{plan.directory}/{name}", place=f"{key}/{name}")

    def prepare(self) -> None:
        """See that checkpoints can be written, as far as keys are concerned, before anything is paid for.

        :raises EncryptionError: when they cannot
        """
        self._codec.prepare(CHECKPOINT)

    def _decoded(self, data: bytes, key: str) -> bytes:
        try:
            return self._codec.decode(data, context=_context(key))
        except CiphertextError as error:
            failure = error.at(f"{self.directory(key)}/manifest.json")
        raise failure


def _context(key: str) -> dict[str, str]:
    return {"what": CHECKPOINT, "plan": key, "name": "manifest"}


def key_of(plan: PlanReference) -> str:
    """The checkpoint key of a plan."""
    return plan.directory.rsplit("/", 1)[-1]


def open_storage(uri: str, options: StorageOptions | None = None) -> CheckpointStorage:
    """Checkpoint storage for a local path, ``file://`` or ``s3://`` URI."""
    if "://" not in uri or uri.startswith("file://"):
        return LocalStorage(Path(uri.removeprefix("file://")).absolute())
    filesystem, path = open_filesystem(uri, options)
    return ObjectStorage(filesystem, path)


def _load(kind: Callable[..., T], data: bytes, where: str, remedy: str) -> T:
    try:
        return kind(**from_document(data))
    except (ValueError, TypeError):
        raise CorruptCheckpointError(f"{where} is damaged. Restore it, or delete it: {remedy}") from None
