"""The chain of a process in a real store: no gap, no fork, whatever happens to commits, threads and processes."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.audit import event_table
from airflow_provider_ai.adapters.audit.event_table import AuditTable
from airflow_provider_ai.adapters.audit.opening import open_audit_log
from airflow_provider_ai.core.audit_chain import Row
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.exceptions import AuditError, AuditUnavailableError, StoreError, StoreUnavailableError
from tests.adapters.audit.conftest import OpenLog
from tests.adapters.audit.events import ACTOR, event

Rows = Callable[[], list[Row]]
Verified = Callable[[], Any]


def facts(row: Row) -> dict[str, Any]:
    return dict(json.loads(row.facts))


def test_a_chain_begins_with_who_opened_it(opened: OpenLog, rows: Rows, verified: Verified) -> None:
    """Then come the events, in order."""
    log = opened()
    log.append([event(1), event(2)])
    log.append([event(3)])
    log.close()
    found = rows()
    assert [row.sequence for row in found] == [1, 2, 3, 4]
    assert [facts(row)["action"] for row in found] == ["chain_opened", "infer", "infer", "infer"]
    assert facts(found[0])["actor"] == {"kind": "cli", "role": "submitter", "user": "u"}
    assert [row.keys for row in found[1:]] == [number.to_bytes(16, "big") for number in (1, 2, 3)]
    report, findings = verified()
    assert (findings, report.chains, report.events, report.unsealed) == ([], 1, 4, 0)


def test_nothing_is_connected_before_the_first_event(opened: OpenLog, settings: AuditSettings) -> None:
    """Not even a file is made."""
    opened()
    path = settings.store.removeprefix("sqlite:///")
    assert settings.store.startswith("postgresql") or not Path(path).exists()


def test_threads_share_commits_and_one_chain(opened: OpenLog, rows: Rows, verified: Verified) -> None:
    """400 events of 8 threads: every one is there once, numbers have no gap."""
    log = opened()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: log.append([event(number)]), range(400)))
    log.close()
    found = rows()
    assert [row.sequence for row in found] == list(range(1, 402))
    assert {facts(row)["reference"] for row in found[1:]} == {f"r{number}" for number in range(400)}
    assert verified()[1] == []


def test_the_same_settings_are_one_chain_until_the_last_is_closed(opened: OpenLog, rows: Rows) -> None:
    """However many parts of a process audit; the next chain says which one it follows."""
    first, second = opened(), opened()
    first.append([event(1)])
    first.close()
    second.append([event(2)])
    second.close()
    opened().append([event(3)])
    found = rows()
    assert sorted(Counter(row.writer for row in found).values()) == [2, 3]
    links = [facts(row).get("previous") for row in found if row.sequence == 1]
    last = next(row for row in found if facts(row).get("reference") == "r2")
    assert {"writer": last.writer, "sequence": 3, "hash": last.hash.hex()} in links


def test_a_child_of_a_fork_begins_its_own_chain(opened: OpenLog, rows: Rows, verified: Verified) -> None:
    """It names the place where it left its parent's; both chains go on."""
    log = opened()
    log.append([event(1)])
    child = os.fork()
    if child == 0:
        try:
            log.append([event(2)])
            log.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    log.append([event(3)])
    log.close()
    found = rows()
    of = {row.writer: [facts(each).get("reference") for each in found if each.writer == row.writer] for row in found}
    assert sorted(of.values(), key=len) == [[None, "r2"], [None, "r1", "r3"]]
    parent = next(row for row in found if facts(row).get("reference") == "r1")
    link = next(facts(row)["previous"] for row in found if row.sequence == 1 and row.writer != parent.writer)
    assert link == {"writer": parent.writer, "sequence": 2, "hash": parent.hash.hex()}
    assert verified()[1] == []


@pytest.mark.parametrize("written", [True, False])
def test_a_commit_of_unknown_end_is_settled(
    written: bool, opened: OpenLog, rows: Rows, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was written or not: the same numbers hold the same events in the end."""
    log = opened()
    log.append([event(1)])
    real = AuditTable.insert

    def breaks(self: AuditTable, some: Any) -> None:
        if written:
            real(self, some)
        raise StoreUnavailableError("the connection broke")

    monkeypatch.setattr(AuditTable, "insert", breaks)
    with pytest.raises(AuditUnavailableError, match="audit: the connection broke"):
        log.append([event(2)])
    monkeypatch.setattr(AuditTable, "insert", real)
    log.append([event(3)])
    log.close()
    assert [facts(row).get("reference") for row in rows()] == [None, "r1", "r2", "r3"]
    assert verified()[1] == []


def test_an_outage_does_not_gather_events(opened: OpenLog, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first commit of unknown end is settled; what was refused after it is its caller's to repeat."""
    log = opened()
    log.append([event(1)])

    def breaks(self: AuditTable, some: Any) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(AuditTable, "insert", breaks)
        patched.setattr(AuditTable, "insert_absent", breaks)
        for number in (2, 3, 4):
            with pytest.raises(AuditUnavailableError):
                log.append([event(number)])
    log.append([event(5)])
    assert [facts(row).get("reference") for row in rows()] == [None, "r1", "r2", "r5"]


def test_a_refused_event_takes_no_number(
    opened: OpenLog, rows: Rows, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that came with it are kept."""
    log = opened()
    log.append([event(1)])
    real = AuditTable.insert

    def refuses(self: AuditTable, some: list[Row]) -> None:
        if any(b"r13" in row.facts for row in some):
            raise StoreError("a value does not fit")
        real(self, some)

    monkeypatch.setattr(AuditTable, "insert", refuses)
    started, outcomes = threading.Barrier(20), []

    def keep(number: int) -> None:
        started.wait(30)
        try:
            log.append([event(number)])
        except AuditError as error:
            outcomes.append(str(error))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(keep, range(2, 22)))
    log.close()
    assert outcomes == ["audit: a value does not fit"]
    assert [row.sequence for row in rows()] == list(range(1, 22))
    assert verified()[1] == []


def test_what_comes_after_the_end_is_refused(opened: OpenLog, rows: Rows, verified: Verified) -> None:
    """From a thread that was left behind, say: its event would look like one that somebody added."""
    log = opened()
    log.append([event(1)])
    log.close()
    with pytest.raises(AuditError, match="this process has closed it"):
        log.append([event(2)])
    assert len(rows()) == 2
    assert verified()[1] == []


@pytest.mark.parametrize("comes_back", [True, False])
def test_closing_settles_a_commit_of_unknown_end(
    comes_back: bool, opened: OpenLog, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot, the last head does not say that nothing follows, for something may."""
    log = opened()
    log.append([event(1)])
    real = AuditTable.insert

    def breaks(self: AuditTable, some: Any) -> None:
        real(self, some)
        raise StoreUnavailableError("the connection broke")

    def down(self: AuditTable, some: Any) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(AuditTable, "insert", breaks)
        with pytest.raises(AuditUnavailableError):
            log.append([event(2)])
        if not comes_back:
            patched.setattr(AuditTable, "insert_absent", down)
        log.close()
    report, findings = verified()
    assert (findings, report.events, report.unsealed) == ([], 3, 0 if comes_back else 1)


def test_the_log_is_durable(opened: OpenLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go through connections whose commits wait for the disk."""
    asked: list[bool] = []
    real = event_table.AuditTable.__init__

    def noted(self: AuditTable, store: Any) -> None:
        real(self, store)
        asked.append(self._database._durable)

    monkeypatch.setattr(event_table.AuditTable, "__init__", noted)
    opened().append([event(1)])
    assert asked == [True]


def test_continue_keeps_events_until_the_store_is_back(
    settings: AuditSettings, rows: Rows, verified: Verified, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order; what was too many is counted, and that is audited."""
    from airflow_provider_ai.adapters.audit import continuing

    monkeypatch.setattr(continuing, "_SKIP_SECONDS", 0.0)
    log = open_audit_log(replace(settings, on_audit_failure="continue"), ACTOR)
    log._shared.log._most = 3  # type: ignore[attr-defined]
    log.append([event(1)])
    real = AuditTable.insert

    def down(self: AuditTable, some: Any) -> None:
        raise StoreUnavailableError("down")

    with monkeypatch.context() as patched:
        patched.setattr(AuditTable, "insert", down)
        patched.setattr(AuditTable, "insert_absent", down)
        for number in range(2, 8):
            log.append([event(number)])
    assert AuditTable.insert is real
    log.append([event(8)])
    log.append([event(9)])
    log.close()
    told = [facts(row).get("reference") or facts(row).get("reason") for row in rows()]
    assert told[0] is None
    assert told[1:] == ["r1", "r2", "r2", "r3", "r4", "lost_4", "r9"]
    assert verified()[1] == []
