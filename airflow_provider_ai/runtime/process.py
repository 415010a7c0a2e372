"""What a run changes in its process while it works, and puts back at the end."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_COLLECT_AFTER_OBJECTS = 20_000
_SWITCH_SECONDS = 0.0005


@contextmanager
def undisturbed_loop() -> Iterator[None]:
    """Keep the garbage collector and other threads from holding up the event loop.

    With everything imported, one full collection stops all calls for 30 to 90 ms, so what is alive already is left out
    of collections, and fewer are made. And a thread that seals or imports gives the interpreter up only when asked for
    it: by default after 5 ms, and the loop must ask several times for every call.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS, *thresholds[1:])
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextmanager
def returned_memory() -> Iterator[None]:
    """Let Arrow allocate from the C library, which gives large blocks back at once.

    Arrow's own pool keeps what each thread once used: 70 MiB on top of the 14 MiB a run needs. Whoever has chosen a
    pool with ARROW_DEFAULT_MEMORY_POOL keeps it.
    """
    import pyarrow as pa

    if os.environ.get("ARROW_DEFAULT_MEMORY_POOL"):
        yield
        return
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
