"""While calls run, collector and thread switches are tuned for the event loop; afterwards they are as they were."""

from __future__ import annotations

import gc
import sys

import pyarrow as pa
import pytest

from airflow_provider_ai.runtime.inference import _run_in_loop
from airflow_provider_ai.runtime.process import returned_memory


def _state() -> tuple[tuple[int, int, int], float, int, str]:
    return gc.get_threshold(), sys.getswitchinterval(), gc.get_freeze_count(), pa.default_memory_pool().backend_name


@pytest.mark.parametrize("error", [None, RuntimeError("no")])
def test_restored(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a failure; an Airflow task may go on with other work."""
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    before = _state()
    during = []

    async def main() -> None:
        during.append(_state())
        if error is not None:
            raise error

    if error is None:
        _run_in_loop(main)
    else:
        with pytest.raises(RuntimeError):
            _run_in_loop(main)
    assert _state() == before
    thresholds, interval, frozen, pool = during[0]
    assert (thresholds[0] > before[0][0], interval < before[1], frozen > 0, pool) == (True, True, True, "system")


def test_a_chosen_pool_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's own environment variable has the last word."""
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "mimalloc")
    before = pa.default_memory_pool().backend_name
    with returned_memory():
        assert pa.default_memory_pool().backend_name == before
