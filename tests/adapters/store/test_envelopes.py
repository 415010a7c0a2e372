"""What the store holds under keys: nothing in the clear, and all of it can be wrapped anew beside its users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ai.adapters.claim_checks import InlineOrClaimCheck
from airflow_provider_ai.adapters.codec import IdentityCodec
from airflow_provider_ai.adapters.store import envelopes
from airflow_provider_ai.adapters.store.envelopes import COLUMNS, pages, replace_rows
from airflow_provider_ai.adapters.store.store import Store
from airflow_provider_ai.adapters.store.tables import GOOD_ANSWERS, METADATA
from airflow_provider_ai.core.job_ports import DeadLetter
from airflow_provider_ai.core.jobs import JobState, NewJob, Outcome, job_id
from airflow_provider_ai.exceptions import KeyRevokedError
from airflow_provider_ai.runtime.key_rotation import KeyRotation, StoredPlaces
from tests.adapters.store.conftest import OpenStore
from tests.support.keys import local_codec, local_keys

CANARY = "canary-7f3a"


def filled(opened: OpenStore, *, codec: Any) -> Store:
    """A store with something in every column that may hold data."""
    store = opened(codec=codec)
    contents = InlineOrClaimCheck(None, codec=codec)
    name = job_id("s", 0)
    payload = contents.pack(CANARY.encode(), kind="payload", job_id=name)
    store.jobs().submit([NewJob(job_id=name, submission="s", position=0, payload=payload)])
    result = contents.pack(CANARY.encode(), kind="result", job_id=name)
    store.jobs().receive(name, Outcome(state=JobState.SUCCEEDED, content=result), via="queue")
    store.answers().save(CANARY, {"note": CANARY}, model="m")
    store.jobs().keep_unknown(CANARY.encode(), job_id=None, via="queue", reason="unknown_job")
    letter = DeadLetter(letter_id="l", job_id=None, reason="r", source="s", message=CANARY.encode())
    store.dead_letters().keep([letter])
    return store


def everything(store: Store) -> str:
    with store.session() as session:
        return repr([session.run(sa.select(table), {}).all() for table in METADATA.sorted_tables])


def test_nothing_in_the_store_is_in_the_clear(opened: OpenStore) -> None:
    """Not even a key that was made of the input of a call."""
    store = filled(opened, codec=local_codec())
    assert CANARY not in everything(store)
    found = store.answers().load(CANARY)
    assert found is not None
    assert found.output == {"note": CANARY}
    letter = store.dead_letters().letter("l")
    assert letter is not None
    assert letter.message == CANARY.encode()


def test_without_keys_that_would_be_noticed(opened: OpenStore) -> None:
    """The mutant of the test above."""
    assert everything(filled(opened, codec=IdentityCodec())).count(CANARY) >= 6


def test_every_row_is_wrapped_anew(opened: OpenStore, url: str) -> None:
    """Then the old key is needed no more; another time there is nothing to do."""
    filled(opened, codec=local_codec("old"))
    places, keys = StoredPlaces(store=url), local_keys("new", "old")
    looked = KeyRotation(places, keys, write=False).run()
    assert (looked.rewrapped, looked.keys) == (5, {"old": 5})
    assert KeyRotation(places, keys, write=True).run().rewrapped == 5
    again = KeyRotation(places, keys, write=True).run()
    assert (again.rewrapped, again.current, again.keys) == (0, 5, {"new": 5})
    store = opened(codec=local_codec("new"))
    found = store.answers().load(CANARY)
    assert found is not None
    [job] = store.jobs().jobs("s")
    contents = InlineOrClaimCheck(None, codec=local_codec("new"))
    assert job.result is not None
    assert contents.unpack(job.result, kind="result", job_id=job.job_id) == CANARY.encode()


def test_rows_are_gone_through_page_by_page(opened: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, however many there are."""
    monkeypatch.setattr(envelopes, "_PAGE", 3)
    store = opened(codec=local_codec())
    for number in range(10):
        store.answers().save(f"k{number}", number, model="m")
    found = list(pages(store, GOOD_ANSWERS.c.key, GOOD_ANSWERS.c.output))
    assert [len(page) for page in found] == [3, 3, 3, 1]
    assert len({key for page in found for key, _ in page}) == 10


def test_a_row_that_has_changed_meanwhile_is_left_alone(opened: OpenStore) -> None:
    """Somebody else's newer answer is not overwritten by an older one."""
    store = opened(codec=local_codec())
    store.answers().save("k", "old", model="m")
    [[(key, before)]] = list(pages(store, GOOD_ANSWERS.c.key, GOOD_ANSWERS.c.output))
    store.answers().save("k", "new", model="m")
    replace_rows(store, GOOD_ANSWERS.c.key, GOOD_ANSWERS.c.output, [(key, before, b"stale")])
    found = store.answers().load("k")
    assert found is not None
    assert found.output == "new"


def test_all_columns_of_bytes_are_known() -> None:
    """One that is added later must be rotated, too; the audit's hold hashes and names, which are no secret."""
    tables = [table for table in METADATA.sorted_tables if not table.name.startswith("ai_audit_")]
    binary = {column for table in tables for column in table.c if isinstance(column.type, sa.LargeBinary)}
    assert binary == {column for _, column in COLUMNS}


def test_an_answer_that_cannot_be_encrypted_is_no_failure(
    opened: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is only a help: circuit breakers go on, and nothing is kept in the clear instead."""
    codec = local_codec()

    def revoked(*_: object, **__: object) -> bytes:
        raise KeyRevokedError("the key is disabled")

    for name in ("encode", "opaque"):
        with monkeypatch.context() as patch:
            patch.setattr(codec, name, revoked)
            store = opened(codec=codec)
            store.answers().save("k", CANARY, model="m")
        assert store.answers().load("k") is None
    with monkeypatch.context() as patch:
        patch.setattr(codec, "opaque", revoked)
        assert opened(codec=codec).answers().load("k") is None
    assert caplog.text.count("the key is disabled") == 3
    assert CANARY not in caplog.text


def test_a_tenant_is_not_rotated_by_another(opened: OpenStore, url: str, tmp_path: Path) -> None:
    """Its rows are refused, and stay as they are."""
    filled(opened, codec=local_codec("old", tenant="clinic-a"))
    keys = local_keys("new", "old", tenant="clinic-b")
    report = KeyRotation(StoredPlaces(store=url, folders=(str(tmp_path / "none"),)), keys, write=True).run()
    assert (report.refused, report.rewrapped) == (5, 0)
