"""The work of a job: one call of the model, which counts it, and one effect in a database of the user's own.

The answer holds a number that is drawn on every try, so two tries of a job can be told apart wherever their result is.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

STUB_PORT, EFFECTS = "FAULTS_STUB_PORT", "FAULTS_EFFECTS"


def make_effects(path: Path) -> None:
    """The table that effects go into."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE effects (key TEXT PRIMARY KEY, id INTEGER, attempt INTEGER)")


def effects(path: Path) -> dict[str, int]:
    """Ids of records by the keys they were written under."""
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT key, id FROM effects").fetchall())


def answer(job: Any) -> dict[str, Any]:
    """The model's answer to the record, and an effect under the job's key."""
    if job.payload.get("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    record = _called(job.payload["id"])
    with closing(sqlite3.connect(os.environ[EFFECTS], timeout=60.0, isolation_level=None)) as database:
        effect = (job.idempotency_key, record["id"], job.attempt)
        database.execute("INSERT INTO effects VALUES (?, ?, ?) ON CONFLICT DO NOTHING", effect)
    return {**record, "key": job.idempotency_key, "attempt": job.attempt, "drawn": secrets.token_hex(8)}


def _called(key: int) -> dict[str, Any]:
    connection = HTTPConnection("127.0.0.1", int(os.environ[STUB_PORT]), timeout=120)
    try:
        connection.request("POST", "/", json.dumps({"model": "m", "inputs": [{"id": key}]}))
        document = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    [record] = document["outputs"]
    return dict(record)
