"""What is logged anywhere in the package, seen from the root: nothing that looks like a payload."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_ai.adapters.payload_free_logs import PACKAGE, PayloadFreeHandler, keep_payloads_out_of_logs
from airflow_provider_ai.exceptions import SpecError

CANARY = "canary-4711"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a handler of the root logger writes, for any logger below the package's."""
    root, package, text = logging.getLogger(), logging.getLogger(PACKAGE), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    keep_payloads_out_of_logs()
    yield text
    root.removeHandler(handler)
    root.setLevel(level)
    package.handlers = [each for each in package.handlers if not isinstance(each, PayloadFreeHandler)]


LOG = logging.getLogger(f"{PACKAGE}.patterns.some.module")
PAYLOADS: list[Any] = [
    {"name": CANARY},
    [CANARY],
    (CANARY,),
    {CANARY},
    CANARY.encode(),
    bytearray(CANARY.encode()),
    CANARY + " and a long note" * 50,
    ValueError(CANARY),
    object.__new__(type("Record", (), {"__repr__": lambda self: CANARY})),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda one: type(one).__name__)
def test_arguments_that_may_be_data(payload: Any, written: io.StringIO) -> None:
    """Are withheld, in every place of a message."""
    LOG.warning("failed on %s", payload)
    LOG.warning("failed on %s of %r", "a", payload)
    LOG.warning("failed on %(what)s", {"what": payload})
    LOG.warning(payload)
    assert CANARY not in written.getvalue()
    assert written.getvalue().count("withheld") == 4


def test_the_text_of_foreign_errors(written: io.StringIO) -> None:
    """Neither their text nor their traceback; the class is said."""
    try:
        raise ValueError(CANARY)
    except ValueError:
        LOG.exception("it failed")
    assert CANARY not in written.getvalue()
    assert "it failed <ValueError, its text withheld>" in written.getvalue()


def test_what_is_no_data(written: io.StringIO) -> None:
    """Counts, names, paths and our own errors are shown as ever."""
    LOG.info("%s: %d of %s in %.1f s (%s)", "/lake/visits", 3, None, 0.5, SpecError("p must be 1"))
    LOG.info("%(done)d done", {"done": 4})
    assert written.getvalue() == "/lake/visits: 3 of None in 0.5 s (p must be 1)\n4 done\n"


def test_other_packages(written: io.StringIO) -> None:
    """Are none of ours."""
    logging.getLogger("other").warning("%s", {"a": 1})
    assert written.getvalue() == "{'a': 1}\n"
