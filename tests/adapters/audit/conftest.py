"""Stores for the audit, an actor, keys, and a walk along everything that a store holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_ai.adapters.audit.event_table import AuditReader
from airflow_provider_ai.adapters.audit.head_places import open_head_place
from airflow_provider_ai.adapters.audit.opening import open_audit_log
from airflow_provider_ai.adapters.audit.signing import HeadVerifier, new_key_pair
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit import Actor
from airflow_provider_ai.core.audit_chain import Row
from airflow_provider_ai.core.audit_check import Finding
from airflow_provider_ai.core.audit_ports import AuditLog
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.runtime.audit_verify import AuditReport, HeadSource, verify_audit
from tests.adapters.audit.events import ACTOR

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.real)


@pytest.fixture(scope="session")
def keys() -> tuple[str, str]:
    """A private and a public key."""
    return new_key_pair()


@pytest.fixture(params=("sqlite", POSTGRESQL))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that does not exist yet."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    """A folder of heads."""
    return tmp_path / "heads"


@pytest.fixture
def settings(url: str, heads: Path, keys: tuple[str, str]) -> AuditSettings:
    """The audit on that store. Heads are shipped at the beginning and at the end."""
    return AuditSettings(
        store=url,
        hmac_key=b"k" * 32,
        heads=str(heads),
        signing_key=keys[0],
        head_interval_seconds=3000,
        head_lag_seconds=4000,
    )


OpenLog = Callable[..., AuditLog]


@pytest.fixture
def opened(settings: AuditSettings) -> Iterator[OpenLog]:
    """``opened(settings, actor)`` opens a log, which is closed after the test."""
    logs: list[AuditLog] = []

    def open_it(given: AuditSettings = settings, actor: Actor = ACTOR) -> AuditLog:
        logs.append(open_audit_log(given, actor))
        return logs[-1]

    yield open_it
    for log in logs:
        log.close()


@pytest.fixture
def rows(url: str) -> Callable[[], list[Row]]:
    """All events in the store."""

    def read() -> list[Row]:
        with closing(open_store(url, timeout_seconds=30)) as store:
            return [Row(*values) for page in AuditReader(store).pages() for values in page]

    return read


@pytest.fixture
def verified(url: str, heads: Path, keys: tuple[str, str]) -> Callable[[], tuple[AuditReport, list[Finding]]]:
    """What verifying everything finds."""

    def verify() -> tuple[AuditReport, list[Finding]]:
        found: list[Finding] = []
        with closing(open_store(url, timeout_seconds=30)) as store:
            reader = AuditReader(store)
            place = open_head_place(str(heads))
            source = HeadSource(HeadVerifier([keys[1]]), place=place, reader=reader, every=True, since="")
            return verify_audit(reader, source, found=found.append), found

    return verify
