"""A deployment whose processes have the rights of their roles and no others: IAM users at Moto, logins in PostgreSQL.

Each role's policy and grants come out of ``airflow-ai policy``, as a user would apply them. What Moto does not look at
is looked at here, in its log: every listing, and every look at an object that is missing, must be of a prefix that a
role which was at work then may list.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import psycopg

from airflow_provider_ai.cli import main
from airflow_provider_ai.core.keyring import keyring_text
from tests.support.iam_rules import permits
from tests.support.keys import local_keys
from tests.support.moto import ACCOUNT, REGION, Moto, User
from tests.support.postgres import PostgresServer
from tests.support.processes import child_environment

_REQUEST = re.compile(r'"(?:\x1b\[[0-9;]*m)*(GET|HEAD) (\S+) HTTP/1.1(?:\x1b\[[0-9;]*m)*" (\d+)')
HMAC_KEY = "a key of record keys for tests, long enough"


def command(*arguments: str | Path) -> list[str]:
    """``airflow-ai`` as a process of its own."""
    program = "from airflow_provider_ai.cli import program; program()"
    return [sys.executable, "-c", program, *map(str, arguments)]


@dataclass
class RoleDeployment:
    """Queues, buckets and a database; ``tables`` are the spec's, without ``[store]``."""

    folder: Path
    moto: Moto
    postgres: PostgresServer
    tables: dict[str, dict[str, Any]]
    tag: str = field(default_factory=lambda: uuid4().hex[:8])
    database: str = ""
    users: dict[str, User] = field(default_factory=dict)  # by role, and so are policies
    policies: dict[str, Any] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    listings: int = 0

    # --- rights

    def policy(self, role: str) -> Any:
        """The IAM policy of a role."""
        return json.loads(self.printed("iam", role, "--account", ACCOUNT))

    def printed(self, what: str, role: str, *options: str) -> str:
        """What ``airflow-ai policy`` prints."""
        spec = self.spec("postgres", self.folder / f"policy-{role}.toml")
        with redirect_stdout(StringIO()) as out:
            code = main(["policy", what, "--role", role, str(spec), *options])
        assert code == 0
        return out.getvalue()

    def grant(self, role: str, *options: str) -> str:
        """Run a script of a role, and make the login that is a member of it; the login."""
        name, login = f"ai_{role}_{self.tag}", f"{role}_{self.tag}"
        with self.connect() as connection:
            connection.execute(self.printed("sql", role, "--name", name, *options))
            if login not in {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}:
                connection.execute(f'CREATE ROLE "{login}" LOGIN IN ROLE "{name}"')
        return login

    def connect(self, login: str = "postgres") -> psycopg.Connection[Any]:
        """The database, as a login."""
        return psycopg.connect(self.url(login), autocommit=True)

    def url(self, login: str) -> str:
        """Likewise, its URL."""
        return self.postgres.url(self.database).replace("//postgres@", f"//{login}@")

    # --- work

    def spec(self, login: str, file: Path) -> Path:
        """The spec of a process, which comes as this login."""
        tables = {**self.tables, **({"store": {"url": self.url(login)}} if "transport" in self.tables else {})}
        if "sink" in tables:
            tables["sink"] = {**tables["sink"], "url": self.url(login)}
        if "store" in tables.get("audit", {}):
            tables["audit"] = {**tables["audit"], "store": self.url(login)}
        lines = []
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        file.write_text("\n".join(lines))
        return file

    def run_as(self, role: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``airflow-ai`` to its end, as a role. ``SPEC`` among the arguments is its spec."""
        environment = self.environment(role)
        start = self.moto.service.log_path.stat().st_size
        done = self._run(self._command(role, arguments), environment)
        self._check_listings(start, {role, *self.running})
        return done

    def run_as_owner(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Likewise, as whoever owns the tables and administers the account."""
        spec = self.spec("postgres", self.folder / "owner.toml")
        line = command(*(spec if each == "SPEC" else each for each in arguments))
        return self._run(line, self.moto.admin.environment(self.moto.url))

    def run_as_nobody(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``airflow-ai`` to its end, without rights at AWS."""
        return self._run(command(*arguments), {})

    @contextmanager
    def running_as(self, role: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """``airflow-ai`` as long as the context lasts, as a role."""
        line = self._command(role, arguments)
        with (self.folder / f"{role}.log").open("wb") as log:
            process = subprocess.Popen(line, env=self._env(self.environment(role)), stdout=log, stderr=log)
            self.running.add(role)
            try:
                yield process
            finally:
                process.terminate()
                process.wait(30)
                self.running.discard(role)

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a role's processes."""
        if role not in self.users:
            self.policies[role] = self.policy(role)
            self.users[role] = self.moto.user(self.policies[role])
        return self.users[role].environment(self.moto.url)

    def log(self, role: str) -> str:
        """What a process of :meth:`running_as` has logged."""
        return (self.folder / f"{role}.log").read_text()

    def _check_listings(self, start: int, roles: set[str]) -> None:
        """See the module."""
        with self.moto.service.log_path.open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        for verb, path, status in _REQUEST.findall(text):
            bucket, _, key = unquote(urlsplit(path).path).strip("/").partition("/")
            asked = parse_qs(urlsplit(path).query, keep_blank_values=True)
            if not (verb == "GET" and bucket and not key) and (verb, status) != ("HEAD", "404"):
                continue
            action = "s3:ListBucketVersions" if "versions" in asked else "s3:ListBucket"
            context = {"s3:prefix": key or asked.get("prefix", [""])[0]}
            may = [permits(self.policies[role], action, f"arn:aws:s3:::{bucket}", context) for role in roles]
            assert any(may), (roles, action, bucket, context)
            self.listings += 1

    def _command(self, role: str, arguments: tuple[str | Path, ...]) -> list[str]:
        spec = self.spec(f"{role}_{self.tag}", self.folder / f"{role}.toml")
        return command(*(spec if each == "SPEC" else each for each in arguments))

    def _run(self, line: list[str], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(line, env=self._env(more), capture_output=True, text=True, timeout=120, check=False)

    def _env(self, more: dict[str, str]) -> dict[str, str]:
        return child_environment({**more, "PYTHONPATH": str(self.folder), "AI_HMAC_KEY": HMAC_KEY})


def encryption(folder: Path) -> dict[str, Any]:
    """``[encryption]`` on a keyring: Moto's KMS refuses everything that a policy names by its ARN."""
    (folder / "keyring.json").write_text(keyring_text(local_keys("first")))
    return {"kind": "local", "keyring_file": "keyring.json", "tenant": "clinic-a"}


def audit(folder: Path, bucket: str) -> dict[str, Any]:
    """``[audit]`` with heads in a bucket."""
    files = ("--private", folder / "signing.pem", "--public", folder / "signing.pub.pem")
    subprocess.run(command("audit", "keygen", *files), capture_output=True, check=True)
    return {
        "heads": f"s3://{bucket}/heads",
        "hmac_key_env": "AI_HMAC_KEY",
        "signing_key_file": "signing.pem",
        "public_key_files": ["signing.pub.pem"],
        "object_lock": "compliance",
        "retain_days": 1,
    }


def queues(moto: Moto, tag: str) -> dict[str, Any]:
    """``[transport]``, and its queues."""
    names = {f"{kind}_queue": f"{kind.replace('_', '-')}-{tag}" for kind in ("request", "result", "dead_letter")}
    for name in names.values():
        moto.client("sqs").create_queue(QueueName=name)
    return {"kind": "sqs", "endpoint_url": moto.url, "region": REGION, **names}
