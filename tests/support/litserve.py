"""LitServe with two small models behind the OpenAI-compatible protocols, in an environment of its own.

`triage` answers chat completions, `hashing` embeddings; see :mod:`tests.support.serve_openai`. LitServe has no
``/v1/models``: like some other servers it says through ``/health`` alone that it is ready.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support import processes

CHAT_MODEL = "triage"
EMBEDDING_MODEL = "hashing"
DIMENSIONS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAIServer:
    """A running LitServe; both protocols are below ``url``."""

    url: str
    service: processes.Service = field(repr=False)


@contextmanager
def litserve(*, port: int | None = None) -> Iterator[OpenAIServer]:
    """Serve until the end of the block. A given ``port`` lets a test take the server away and back."""
    python = processes.side_environment("litserve")
    port = port or processes.free_port()
    url = f"http://127.0.0.1:{port}"
    script = Path(__file__).with_name("serve_openai.py")
    with (
        tempfile.TemporaryDirectory(prefix="litserve-", ignore_cleanup_errors=True) as root,
        processes.running(
            "LitServe",
            [python, "-P", script, str(port)],  # -P: this folder has a module called litserve
            log_path=Path(root) / "litserve.log",
            env=processes.child_environment({"TMPDIR": root, "OMP_NUM_THREADS": "1"}),
            cwd=Path(root),
            ready=partial(processes.http_ok, f"{url}/health"),
            deadline_seconds=90.0,
        ) as service,
    ):
        yield OpenAIServer(url=url, service=service)
