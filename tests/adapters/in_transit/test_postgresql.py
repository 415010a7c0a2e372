"""PostgreSQL with verify-full: store (psycopg) and warehouse (ADBC) against servers that must not be trusted.

sslmode=require takes every one of them that speaks TLS for the right one, which is why it is refused under phi. The
server that the tests have is built without TLS: a way through with TLS stands before it, and counts what it is told.
"""

from __future__ import annotations

import psycopg
import pytest

from airflow_provider_ai.adapters.sinks import open_sink
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.config import SinkSettings
from airflow_provider_ai.core.phi_transit import database_refusals
from airflow_provider_ai.exceptions import SinkError, StoreError
from tests.adapters.in_transit.servers import UNTRUSTED, good
from tests.support.certificates import Authority
from tests.support.postgres import PostgresServer
from tests.support.tls_peer import TlsPeer, tls_peer

pytestmark = pytest.mark.real
STRANGERS = [case for case in UNTRUSTED if case != "plaintext"]


def _url(peer: TlsPeer, database: str, ca_file: str, mode: str = "verify-full") -> str:
    return f"postgresql://postgres@127.0.0.1:{peer.port}/{database}?sslmode={mode}&sslrootcert={ca_file}"


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """A fresh database."""
    return postgres_server.create_database()


def _store(url: str) -> None:
    store = open_store(url, timeout_seconds=3)
    try:
        store.prepare()
    finally:
        store.close()


def _sink(url: str) -> None:
    sink = open_sink(SinkSettings(url=url, table="scores"))
    try:
        assert sink.publications("scope") == {}
    finally:
        sink.close()


def test_the_one_that_is_to_be_trusted(authority: Authority, postgres_server: PostgresServer, database: str) -> None:
    """Store and warehouse reach it through TLS, with a URL that the policy accepts."""
    with tls_peer(good(authority), forward=postgres_server.port, postgresql=True) as peer:
        url = _url(peer, database, authority.ca_file)
        assert list(database_refusals("store", url.replace("127.0.0.1", "db.example.org"))) == []
        _store(url)
        stored = peer.told
        _sink(url)
    assert peer.told > stored > 0
    assert peer.refused == 0


@pytest.mark.parametrize("case", STRANGERS)
def test_one_that_is_not(
    case: str, authority: Authority, stranger: Authority, postgres_server: PostgresServer, database: str
) -> None:
    """Both refuse it, and tell it nothing."""
    context = UNTRUSTED[case](authority, stranger)
    with tls_peer(context, forward=postgres_server.port, postgresql=True) as peer:
        url = _url(peer, database, authority.ca_file)
        with pytest.raises(StoreError):
            _store(url)
        with pytest.raises(SinkError):
            _sink(url)
    assert peer.connections >= 2
    assert peer.told == 0


@pytest.mark.parametrize(
    ("mode", "fooled_by"),
    [("require", ["self-signed", "expired", "wrong host", "rogue authority"]), ("verify-ca", ["wrong host"])],
)
def test_what_weaker_modes_let_through(
    mode: str, fooled_by: list[str], authority: Authority, stranger: Authority, postgres_server: PostgresServer
) -> None:
    """The servers above are such that weaker modes talk to them: so it is verify-full that refuses them."""
    for case in fooled_by:
        ca_file = authority.ca_file if mode == "verify-ca" else "/nowhere"
        with tls_peer(UNTRUSTED[case](authority, stranger), forward=postgres_server.port, postgresql=True) as peer:
            with psycopg.connect(_url(peer, "postgres", ca_file, mode)) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            assert peer.told > 0


def test_a_server_without_tls(authority: Authority, postgres_server: PostgresServer) -> None:
    """It is not talked to in clear."""
    url = f"{postgres_server.url()}?sslmode=verify-full&sslrootcert={authority.ca_file}"
    with pytest.raises(StoreError):
        _store(url)
    with pytest.raises(SinkError):
        _sink(url)
