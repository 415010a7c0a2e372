"""This machine is told from how a host is written."""

from __future__ import annotations

import pytest

from airflow_provider_ai.core.hosts import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.0.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_this_machine(host: str) -> None:
    """The loopback network, and the name that is reserved for it."""
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "10.0.0.1",
        "128.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "::",
        "::ffff:127.0.0.1",
        "localhost.",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "127.0.0.1@example.org",
        "my-localhost",
    ],
)
def test_other_machines(host: str) -> None:
    """Whatever is not plainly this machine may be another one."""
    assert not is_loopback(host)
