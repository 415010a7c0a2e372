"""Batch specs for tests."""

from __future__ import annotations

from pathlib import Path

# Word for word what users are shown, every key of it.
DOCUMENTED = """\
[input]
uri = "visits/*.parquet"
id_column = "visit_id"
columns = ["a", "b"]                    # sent for open-inference / json
rows_per_partition = 100000
[endpoint]
url = "http://127.0.0.1:8080"
protocol = "json"                       # json | open-inference | openai-chat | openai-embeddings
model = "m"
path = "/predict"                       # optional override
prompt = "…{{ record.note }}…"          # openai-chat, openai-embeddings
api_key_env = "MODEL_KEY"               # optional
[limits]
concurrency = 64
records_per_request = 1
request_deadline_seconds = 30
max_attempts = 5
max_quarantined_fraction = 0.01
[checkpoint]
uri = "checkpoints/"
interval_seconds = 1.0
[sink]
url = "duckdb:///warehouse.duckdb"      # any SQLAlchemy URL: duckdb, sqlite, postgresql
table = "predictions"
"""

MINIMAL = """\
[input]
uri = "visits.parquet"
id_column = "visit_id"
[endpoint]
url = "http://127.0.0.1:8080"
protocol = "json"
model = "m"
[checkpoint]
uri = "checkpoints"
[sink]
url = "duckdb:///warehouse.duckdb"
table = "predictions"
"""


def write(folder: Path, text: str = MINIMAL) -> Path:
    """A spec file in ``folder``."""
    path = folder / "nightly.toml"
    path.write_text(text, "utf-8")
    return path


def changed(*lines: str, table: str = "endpoint", without: str = "", text: str = MINIMAL) -> str:
    """``text`` with lines added to a table, and without the line of that table that sets ``without``."""
    kept: list[str] = []
    current = ""
    for line in text.splitlines():
        current = line.strip("[]") if line.startswith("[") else current
        if not (current == table and without and line.split(" =")[0] == without):
            kept.append(line)
        if line == f"[{table}]":
            kept += lines
    if f"[{table}]" not in kept:
        kept += [f"[{table}]", *lines]
    return "\n".join(kept)
