"""Moto as a server that enforces IAM policies: SQS and S3 on one loopback port, in an environment of its own.

It looks at actions and resources, and reads a policy otherwise than AWS: conditions are not known to it, so a statement
that denies what comes without TLS would deny everything, and is left out; a batch call of SQS is an action of its own;
and which queue GetQueueUrl asks for it does not see. All of that is tested by other means.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config

from tests.support import processes

ACCOUNT, REGION = "123456789012", "us-east-1"
_BEFORE_THE_RULES = 3  # calls that make the administrator
_EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": "*"}]}
_BATCHES = ("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
_URL = "sqs:GetQueueUrl"


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Someone with an access key."""

    access_key: str
    secret_key: str

    def environment(self, url: str) -> dict[str, str]:
        """What a process of theirs needs to reach the server."""
        return {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": REGION,
        }


@dataclass(kw_only=True, slots=True)
class Moto:
    """A running server."""

    url: str
    service: processes.Service = field(repr=False)
    admin: User = field(init=False)

    def __post_init__(self) -> None:
        self.admin = self.user(_EVERYTHING, by=User(access_key="root", secret_key="root"))

    def client(self, service: str, user: User | None = None) -> Any:
        """A boto3 client of a user; None for the administrator's."""
        user = user or self.admin
        return boto3.session.Session().client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=user.access_key,
            aws_secret_access_key=user.secret_key,
            config=Config(retries={"max_attempts": 1}, proxies={}, s3={"addressing_style": "path"}),
        )

    def user(self, policy: Mapping[str, Any], *, by: User | None = None) -> User:
        """A new user under a policy."""
        iam, name = self.client("iam", by), f"user-{uuid4().hex[:12]}"
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        document = json.dumps({**policy, "Statement": list(_as_moto_reads(policy["Statement"]))})
        iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=document)
        return User(access_key=made["AccessKeyId"], secret_key=made["SecretAccessKey"])


def _as_moto_reads(statements: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for statement in statements:
        if statement["Effect"] != "Allow":
            continue
        actions = list(statement["Action"])
        batches = [f"{action}Batch" for action in actions if action in _BATCHES]
        yield {**statement, "Action": [*actions, *batches]}
        if _URL in actions:
            yield {"Effect": "Allow", "Action": _URL, "Resource": "*"}


@contextmanager
def moto() -> Iterator[Moto]:
    """A server with no state but an administrator."""
    python = processes.side_environment("moto")
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory(prefix="moto-", ignore_cleanup_errors=True) as root,
        processes.running(
            "moto",
            [python.with_name("moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            log_path=Path(root) / "moto.log",
            env=processes.child_environment({"INITIAL_NO_AUTH_ACTION_COUNT": str(_BEFORE_THE_RULES), "TMPDIR": root}),
            cwd=Path(root),
            ready=partial(processes.http_ok, f"{url}/moto-api/"),
            deadline_seconds=60.0,
        ) as service,
    ):
        yield Moto(url=url, service=service)
