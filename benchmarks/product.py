"""One batch job for the product's command line, and the steps that several benchmarks share.

Everything a job leaves behind (spec, checkpoints, warehouse) is in its own folder, so a fresh folder is a fresh job and
a copied folder is a resumable one.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import measure

TABLE = "predictions"
CONCURRENCY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A spec for `airflow-ai batch run` over generated visits.

    Args:
        folder: of the job; created by `write_spec`.
        data: folder of the parquet files.
        url: base URL of the model server.
        records_per_request, concurrency: as in the spec.
        rows_per_partition: as in the spec.
        sink_url: SQLAlchemy URL; the default is a DuckDB file in the folder.
        checkpoint_uri: the default is a folder in the folder.
        keyring_env: the variable with the keys; None for no encryption.
    """

    folder: Path
    data: Path
    url: str
    records_per_request: int = 1
    concurrency: int = CONCURRENCY
    rows_per_partition: int = 100_000
    sink_url: str = "duckdb:///warehouse.duckdb"
    checkpoint_uri: str = "checkpoints/"
    keyring_env: str | None = None

    @property
    def spec_path(self) -> Path:
        """The spec file."""
        return self.folder / "spec.toml"

    @property
    def warehouse(self) -> Path:
        """The DuckDB file of the default sink."""
        return self.folder / "warehouse.duckdb"

    def spec(self) -> dict[str, dict[str, Any]]:
        """The spec's sections."""
        return {
            "input": {
                "uri": f"{self.data}/*.parquet",
                "id_column": "visit_id",
                "columns": ["a", "b"],
                "rows_per_partition": self.rows_per_partition,
            },
            "endpoint": {"url": self.url, "protocol": "json", "model": "m", "path": "/predict"},
            "limits": {
                "concurrency": self.concurrency,
                "records_per_request": self.records_per_request,
                "request_deadline_seconds": 30,
                "max_attempts": 5,
                "max_quarantined_fraction": 0.01,
            },
            "checkpoint": {"uri": self.checkpoint_uri, "interval_seconds": 1.0},
            "sink": {"url": self.sink_url, "table": TABLE},
            **({} if self.keyring_env is None else {"encryption": {"kind": "local", "keyring_env": self.keyring_env}}),
        }

    def write_spec(self) -> Path:
        """Write the spec and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        sections = [f"[{name}]\n{_lines(values)}\n" for name, values in self.spec().items()]
        self.spec_path.write_text("\n".join(sections))
        return self.spec_path

    def command(self, verb: str | None = None) -> list[str | Path]:
        """The command line, with `--resume`, `--retry-failed` or `--recompute` as `verb`."""
        program = Path(sys.executable).parent / "airflow-ai"
        if not program.exists():
            raise FileNotFoundError(f"{program} is missing: run `make install`")
        return [program, "batch", "run", self.write_spec(), *([verb] if verb else [])]

    def run(self, verb: str | None = None) -> measure.Measured:
        """Run to the end and measure. Raises RuntimeError when it fails."""
        return measure.run(self.command(verb)).require_success()

    def start(self, verb: str | None = None) -> measure.Running:
        """Start, for killing it midway."""
        return measure.Running(self.command(verb))


def script_command(
    url: str, data: Path, output: Path, *, records_per_request: int = 1, concurrency: int = CONCURRENCY
) -> list[str | Path]:
    """The hand-written script over the same data."""
    flags: list[str | Path] = ["--url", f"{url}/predict", "--input", data, "--output", output]
    flags += ["--records-per-request", str(records_per_request), "--concurrency", str(concurrency)]
    return [sys.executable, "-m", "benchmarks.baselines.asyncio_script", *flags]


def make_data(folder: Path, rows: int, **settings: int) -> Path:
    """Generate the input in a subprocess (see `measure`), unless the folder has it already."""
    ready = folder / f".ready-{rows}"  # a name that dataset readers ignore
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        generator = [sys.executable, "-m", "benchmarks.data", f"--rows={rows}", f"--output={folder}", *flags]
        measure.run(generator).require_success()
        ready.touch()
    return folder


def published(warehouse: Path, key: str = "visit_id") -> tuple[int, int]:
    """Rows and distinct ids of the table in a DuckDB file, read in a subprocess. `key` is the id column's name."""
    query = f"SELECT count(*), count(DISTINCT {key}) FROM {TABLE}"  # noqa: S608 - names from this file
    code = "import duckdb, json, sys; print(json.dumps(duckdb.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()))"
    answer = measure.run([sys.executable, "-c", code, warehouse, query]).require_success()
    rows, distinct = json.loads(answer.stdout)
    return rows, distinct


@contextmanager
def working_folder(chosen: Path | None) -> Iterator[Path]:
    """The chosen folder, kept; or a temporary one, removed."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()
        return
    with TemporaryDirectory(prefix="benchmark-") as folder:
        yield Path(folder)


def _lines(values: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items())
