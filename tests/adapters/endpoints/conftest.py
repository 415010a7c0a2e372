"""Every test of this folder: nothing that must stay private is logged, at any level, by any library."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.adapters.endpoints.calling import CANARIES
from tests.support.certificates import Authority


@pytest.fixture(autouse=True)
def _nothing_private_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    logged = caplog.text + "".join(str(record.__dict__) for record in caplog.get_records("call"))
    assert not [canary for canary in CANARIES if canary in logged]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private certificate authority."""
    return Authority("private", tmp_path_factory.mktemp("private-ca"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority nobody trusts."""
    return Authority("stranger", tmp_path_factory.mktemp("strange-ca"))
