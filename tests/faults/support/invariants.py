"""What must hold after any fault, counted at the far end: in the table and at the server.

:func:`problems` says everything that is wrong; it is a list so that a mutant can be shown to be caught, and for what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from benchmarks.stub import label_of, score_of
from tests.faults.support.batch import Batch
from tests.faults.support.dataset import SECRETS
from tests.faults.support.warehouse import Row

Id = int | str


def verify(batch: Batch, *, repeated: int = 0, quarantined: Collection[Id] = (), stage: str = "called") -> None:
    """Every invariant holds, also after one more run.

    :param repeated: calls beyond one per record that the faults of the test may have cost, at most
    :param quarantined: records that are in quarantine and so not in the table; their calls are not counted
    :param stage: which calls are counted at the server: ``called``, or only those it has ``paid`` for
    """
    found = problems(batch, repeated=repeated, quarantined=quarantined, stage=stage) or list(_unclean(batch))
    assert not found, "\n".join([*found, "stderr of the last run:", batch.runs[-1].stderr])


def problems(batch: Batch, *, repeated: int = 0, quarantined: Collection[Id] = (), stage: str = "called") -> list[str]:
    """What is wrong with the table, the calls and the logs, one line each."""
    rows = batch.rows()
    wanted = set(batch.dataset.ids) - set(quarantined)
    found = [*_wrong_ids(rows, wanted), *_wrong_rows(batch, rows)]
    return [*found, *_wrong_calls(batch, wanted, repeated, stage), *_leaks(batch)]


def _wrong_ids(rows: list[Row], wanted: set[Id]) -> Iterator[str]:
    there = Counter(row["visit_id"] for row in rows)
    duplicated = sum(count - 1 for count in there.values())
    if lost := len(wanted - there.keys()):
        yield f"lost: {lost} records are not in the table"
    if duplicated:
        yield f"duplicated: {duplicated} rows too many in the table"
    if foreign := len(there.keys() - wanted):
        yield f"foreign: {foreign} ids in the table that do not belong there"


def _wrong_rows(batch: Batch, rows: list[Row]) -> Iterator[str]:
    sources = batch.dataset.sources
    known = [row for row in rows if row["visit_id"] in sources]
    if wrong := sum((row["score"], row["label"]) != _answer(row["visit_id"]) for row in known):
        yield f"misdelivered: {wrong} rows carry the answer of another record"
    if wrong := sum((row["_source_file"], row["_source_row"]) != sources[row["visit_id"]] for row in known):
        yield f"lineage: {wrong} rows name a source they do not come from"
    if len({row["_record_key"] for row in rows}) != len({row["visit_id"] for row in rows}):
        yield "lineage: record keys and ids are not one to one"


def _wrong_calls(batch: Batch, wanted: set[Id], repeated: int, stage: str) -> Iterator[str]:
    calls = batch.stub.counts(stage)
    if never := sum(str(key) not in calls for key in wanted):
        yield f"never {stage}: {never} records of the table"
    extra = sum(calls.get(str(key), 1) - 1 for key in wanted)
    if extra > repeated:
        yield f"calls: {extra} beyond one per record, the bound is {repeated}"


def _leaks(batch: Batch) -> Iterator[str]:
    for number, run in enumerate(batch.runs):
        if any(secret in run.output for secret in SECRETS):
            yield f"leak: run {number} has written data of a record"


def _unclean(batch: Batch) -> Iterator[str]:
    """What a further run does: nothing."""
    rows, requests = batch.rows(), batch.stub.progress()["requests"]
    report = batch.run().report
    if report is None or report["requests"] or batch.stub.progress()["requests"] != requests:
        yield "second run: it called the model"
    if batch.rows() != rows:
        yield "second run: the table is another one"
    status = batch.status()
    if status["plan"] != "complete" or status["would_call"]:
        yield f"status: plan {status['plan']}, a resume would call {status['would_call']}"
    if unpublished := sum(not part["published"] for part in status["partitions"]):
        yield f"status: {unpublished} partitions are not published"


def _answer(key: Id) -> tuple[float, str]:
    return score_of(key), label_of(key)
