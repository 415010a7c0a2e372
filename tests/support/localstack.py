"""LocalStack: SQS on a loopback port, in an environment of its own. The second oracle beside MiniStack.

State is in memory and dies with the process. Nothing is downloaded at its start.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.support import processes


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalStack:
    """A running LocalStack at ``url``."""

    url: str
    service: processes.Service = field(repr=False)

    def client(self, service: str) -> Any:
        """A boto3 client of ``sqs``."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 2}, proxies={}),
        )


@contextmanager
def localstack() -> Iterator[LocalStack]:
    """A LocalStack with no state."""
    python = processes.side_environment("localstack")
    port = processes.free_port()
    with tempfile.TemporaryDirectory(prefix="localstack-", ignore_cleanup_errors=True) as root:
        settings = {
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "GATEWAY_SERVER": "hypercorn",
            "SERVICES": "sqs",
            "EAGER_SERVICE_LOADING": "1",
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "FILESYSTEM_ROOT": root,
            "DNS_ADDRESS": "0",
            "DOCKER_HOST": f"unix://{root}/no-docker.sock",
            "TMPDIR": root,
        }
        with processes.running(
            "LocalStack",
            [python, "-m", "localstack.runtime.main"],
            log_path=Path(root) / "localstack.log",
            env=processes.child_environment(settings),
            cwd=Path(root),
            ready=partial(processes.http_ok, f"http://127.0.0.1:{port}/_localstack/health"),
            deadline_seconds=180.0,
        ) as service:
            yield LocalStack(url=f"http://127.0.0.1:{port}", service=service)
