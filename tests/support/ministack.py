"""MiniStack: S3, SQS, DynamoDB and KMS on one loopback port, in an environment of its own.

State is in memory and dies with the process. A developer's Docker is kept out of its reach.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pyarrow.fs
from botocore.config import Config

from tests.support import processes

REGION = "us-east-1"
ACCESS_KEY = "test"
SECRET_KEY = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class MiniStack:
    """A running MiniStack at ``url``."""

    url: str
    service: processes.Service = field(repr=False)

    def client(self, service: str) -> Any:
        """A boto3 client of ``s3``, ``sqs``, ``dynamodb`` or ``kms``."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"max_attempts": 2}, proxies={}, s3={"addressing_style": "path"}),
        )

    def make_bucket(self, prefix: str = "test") -> str:
        """Create a bucket with a fresh name; its name."""
        name = f"{prefix}-{uuid4().hex[:12]}"
        self.client("s3").create_bucket(Bucket=name)
        return name

    def filesystem(self) -> pyarrow.fs.S3FileSystem:
        """The same S3 through pyarrow."""
        return pyarrow.fs.S3FileSystem(
            access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, endpoint_override=self.url
        )

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to reach this S3 through boto3 and the AWS defaults."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
        }


@contextmanager
def ministack(*, services: str = "s3,sqs,dynamodb,kms") -> Iterator[MiniStack]:
    """A MiniStack with no state."""
    python = processes.side_environment("ministack")
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ministack-", ignore_cleanup_errors=True) as root:
        settings = {
            "SERVICES": services,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "127.0.0.1",
            "S3_DATA_DIR": f"{root}/s3",
            "STATE_DIR": f"{root}/state",
            "TMPDIR": root,
            "DOCKER_HOST": f"unix://{root}/no-docker.sock",
        }
        with processes.running(
            "MiniStack",
            [python, "-m", "ministack"],
            log_path=Path(root) / "ministack.log",
            env=processes.child_environment(settings),
            cwd=Path(root),
            ready=partial(processes.http_ok, f"{url}/_ministack/health"),
            deadline_seconds=60.0,
        ) as service:
            yield MiniStack(url=url, service=service)
