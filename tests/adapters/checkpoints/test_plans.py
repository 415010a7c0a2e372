"""Plans and passes below a checkpoint URI: found again as they were, damage refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_ai.adapters.checkpoints.plans import Pass, PlanPointer, PlanStore, key_of, open_storage
from airflow_provider_ai.adapters.checkpoints.storage import CheckpointStorage
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.core.config import Verb
from airflow_provider_ai.core.manifest import FileSlice, Manifest, Partition, SourceFile
from airflow_provider_ai.core.report import PlanReference
from airflow_provider_ai.exceptions import CorruptCheckpointError
from airflow_provider_ai.testing import InMemoryStorage

URI = "s3://lake/checkpoints"
KEY = "0123456789abcdef"


def manifest(*, rows: int = 10) -> Manifest:
    source = SourceFile(path="visits/a.parquet", size=100, version="1", rows=rows, row_groups=(rows,))
    return Manifest(
        input_uri="visits/",
        format="parquet",
        id_column="id",
        schema=(("id", "int64"),),
        files=(source,),
        partitions=(Partition(index=0, slices=(FileSlice(file=0, start=0, end=rows),)),),
        listing="listing",
    )


def pointer(*, complete: bool = False) -> PlanPointer:
    return PlanPointer(key=KEY, fingerprint=manifest().fingerprint, listing="listing", complete=complete)


def plan_store(storage: CheckpointStorage) -> PlanStore:
    return PlanStore(storage, IdentityCodec(), uri=URI + "/")


def test_a_run_finds_its_plan_again(storage: CheckpointStorage) -> None:
    """On every kind of storage; nothing is there before it was written."""
    plans = plan_store(storage)
    assert plans.pointer("run") is None
    assert plans.manifest(KEY, fingerprint=manifest().fingerprint) is None
    plans.save_manifest(KEY, manifest())
    plans.point("run", pointer())
    again = plan_store(storage)
    assert again.pointer("run") == pointer()
    assert again.pointer("another run") is None
    assert again.manifest(KEY, fingerprint=manifest().fingerprint) == manifest()
    again.point("run", pointer(complete=True))
    assert plans.pointer("run") == pointer(complete=True)


def test_a_manifest_is_written_once() -> None:
    """A second plan under the same key leaves the first one's bytes alone."""
    storage = InMemoryStorage()
    plans = plan_store(storage)
    plans.save_manifest(KEY, manifest())
    storage.refuse_writes()
    plans.save_manifest(KEY, manifest())
    assert plans.manifest(KEY, fingerprint=manifest().fingerprint) == manifest()


@pytest.mark.parametrize(
    ("verbs", "expected"),
    [
        ([], Pass()),
        (["resume", "resume"], Pass()),
        (["retry_failed"], Pass(round=1)),
        (["retry_failed", "resume", "retry_failed"], Pass(round=2)),
        (["retry_failed", "recompute"], Pass(epoch=1, round=0)),
        (["recompute", "retry_failed", "recompute", "resume"], Pass(epoch=2)),
    ],
)
def test_the_pass_a_verb_opens(verbs: list[Verb], expected: Pass) -> None:
    """``recompute`` an epoch, ``retry_failed`` a round in it; ``resume`` goes on; the next process sees it."""
    storage = InMemoryStorage()
    for verb in verbs:
        plan_store(storage).begin(KEY, verb)
    assert plan_store(storage).current_pass(KEY) == expected


def test_resume_writes_nothing() -> None:
    """A read-only volume can be resumed from up to the first outcome."""
    storage = InMemoryStorage()
    storage.refuse_writes()
    assert plan_store(storage).begin(KEY, "resume") == Pass()


SMALL_FILES = [
    (f"{KEY}/manifest.json", lambda plans: plans.manifest(KEY, fingerprint=manifest().fingerprint)),
    (f"{KEY}/pass.json", lambda plans: plans.current_pass(KEY)),
    ("plans/run.json", lambda plans: plans.pointer("run")),
]


@pytest.mark.parametrize(("name", "read"), [pytest.param(name, read, id=name) for name, read in SMALL_FILES])
def test_damage_is_refused_by_name(name: str, read: object) -> None:
    """Whichever byte it is, also a file that is cut short or holds something else; with what deleting it costs."""
    storage = InMemoryStorage()
    plans = plan_store(storage)
    plans.save_manifest(KEY, manifest())
    plans.begin(KEY, "retry_failed")
    plans.point("run", pointer())
    folder, _, file = name.partition("/")
    whole = storage.folder(folder).read(file)
    assert whole is not None
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for data in (*flipped, b"", whole[:-1], b"{}", b"[]", b'"text"', b"null", whole + b"x"):
        storage.folder(folder).write(file, data)
        with pytest.raises(CorruptCheckpointError, match=rf"{URI}/{name} is damaged.*delete it"):
            read(plans)  # type: ignore[operator]


def test_a_manifest_of_another_plan_is_refused() -> None:
    """It is whole, but not the one that is meant."""
    plans = plan_store(InMemoryStorage())
    plans.save_manifest(KEY, manifest(rows=11))
    with pytest.raises(CorruptCheckpointError, match=r"manifest\.json is damaged"):
        plans.manifest(KEY, fingerprint=manifest().fingerprint)


def test_partitions_have_folders_of_their_own() -> None:
    """By key, epoch and index; what is written in one is not seen in another."""
    storage = InMemoryStorage()
    plans = plan_store(storage)

    def reference(epoch: int) -> PlanReference:
        return PlanReference(
            run="run",
            directory=plans.directory(KEY),
            fingerprint="f",
            epoch=epoch,
            round=0,
            scope="s",
            partitions=2,
            rows=10,
        )

    files = plans.files(reference(1), 7)
    files.storage.write("done-000.json", b"here")
    assert key_of(reference(1)) == KEY
    assert files.where == f"{URI}/{KEY}/e001/p00007"
    assert storage.folder(KEY).folder("e001/p00007").read("done-000.json") == b"here"
    for epoch, index in ((0, 7), (1, 6), (2, 7)):
        assert plans.files(reference(epoch), index).storage.names() == []


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_path_is_local_storage(tmp_path: Path, scheme: str) -> None:
    """With or without ``file://``."""
    open_storage(f"{scheme}{tmp_path}/checkpoints").folder("plans").write("run.json", b"{}")
    assert (tmp_path / "checkpoints" / "plans" / "run.json").read_bytes() == b"{}"
