"""Every kind of checkpoint storage, empty, as one fixture: what holds for one must hold for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.checkpoints.local_storage import LocalStorage
from airflow_provider_ai.adapters.checkpoints.object_storage import ObjectStorage
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.testing import InMemoryStorage
from tests.adapters.checkpoints.object_store import object_store


def local(tmp_path: Path) -> CheckpointStorage:
    return LocalStorage(tmp_path / "not" / "there" / "yet")


def objects(tmp_path: Path) -> CheckpointStorage:
    return ObjectStorage(object_store()[0], "bucket/some/prefix/")


def memory(tmp_path: Path) -> CheckpointStorage:
    return InMemoryStorage()


@pytest.fixture(
    params=[local, objects, memory, pytest.param("s3", marks=pytest.mark.real)],
    ids=["local", "objects", "memory", "s3"],
)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStorage:
    """An empty storage of each kind; S3 is a real server."""
    made: Any = request.param
    if made == "s3":
        server = request.getfixturevalue("ministack_server")
        return ObjectStorage(server.filesystem(), f"{server.make_bucket()}/some/prefix")
    return made(tmp_path)  # type: ignore[no-any-return]
