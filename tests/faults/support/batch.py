"""A batch as a user has it: a spec file, and runs of the command line over it as processes that can be hurt.

Everything a batch leaves behind is in its folder. Runs lead sessions of their own, so that a kill takes all of a run;
none survives its batch: use :class:`Batch` as a context manager.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.stub import StubServer
from tests.faults.support.dataset import Dataset
from tests.faults.support.warehouse import TABLE, Row, read_rows
from tests.support.processes import REPOSITORY, child_environment

COMMAND = Path(sys.executable).with_name("airflow-ai")
RUN_SECONDS = 90.0
_POLL_SECONDS = 0.005
OUTPUT_SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
    "required": ["score", "label"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that ended. ``report``: the JSON object of its last line on stdout, or None when it printed none."""

    code: int
    report: dict[str, Any] | None
    stderr: str
    seconds: float


class Run:
    """One process of the command line."""

    def __init__(self, command: Sequence[str | Path], *, output: Path, environment: dict[str, str]) -> None:
        self._stdout, self._stderr = output.with_suffix(".out"), output.with_suffix(".err")
        self._started = time.monotonic()
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=REPOSITORY,
                env=environment,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return self._stdout.read_text(errors="replace") + self.stderr

    @property
    def stderr(self) -> str:
        """What it has written for people so far."""
        return self._stderr.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """A signal to its process."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to all of it, as the kernel's out-of-memory killer does; returns when it is gone."""
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def until(self, condition: Callable[[], bool], what: str, *, seconds: float = RUN_SECONDS) -> Self:
        """Poll until ``condition`` holds; AssertionError when the run ends or time is up before."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.alive, f"the run ended with {self.process.returncode} before {what}:\n{self.stderr}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}\n{self.stderr}"
            time.sleep(_POLL_SECONDS)
        return self

    def until_records(self, stub: StubServer, records: int, *, stage: str = "answered") -> Self:
        """Poll until so many records are ``records`` (called), ``paid`` or ``answered`` at the server."""
        return self.until(lambda: stub.progress()[stage] >= records, f"{records} records {stage}")

    def wait(self, *, seconds: float = RUN_SECONDS) -> Finished:
        """Its end; AssertionError with its messages when it is not within ``seconds``."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the run did not end within {seconds:g} s:\n{self.stderr}") from None
        lines = self._stdout.read_text().splitlines()
        report = json.loads(lines[-1]) if lines else None
        return Finished(code=code, report=report, stderr=self.stderr, seconds=time.monotonic() - self._started)

    def expect(self, code: int, *, seconds: float = RUN_SECONDS) -> Finished:
        """Its end, with this exit code."""
        end = self.wait(seconds=seconds)
        assert end.code == code, f"exit code {end.code}, expected {code}:\n{end.stderr}"
        return end


@dataclass(slots=True, kw_only=True)
class Batch:
    """Protocol ``json`` over a dataset; 4 partitions, 16 calls in flight and a DuckDB file unless told otherwise."""

    folder: Path
    dataset: Dataset
    stub: StubServer
    sink_url: str = ""
    checkpoint_uri: str = "checkpoints/"
    partitions: int = 4
    interval_seconds: float = 0.2
    limits: dict[str, Any] = field(default_factory=dict)
    endpoint: dict[str, Any] = field(default_factory=dict)
    encryption: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sink_url = self.sink_url or f"duckdb:///{self.folder}/warehouse.duckdb"
        base = {"concurrency": 16, "max_quarantined_fraction": 0.0, "backoff_base_seconds": 0.05}
        self.limits = {**base, "backoff_cap_seconds": 1.0, **self.limits}
        self.dataset.write()
        self.write_spec()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for run in self.runs:
            run.kill()

    @property
    def in_flight(self) -> int:
        """Most records on their way at any moment: what one kill may cost."""
        return int(self.limits["concurrency"]) * int(self.limits.get("records_per_request", 1))

    @property
    def checkpoints(self) -> Path:
        """The local checkpoint folder."""
        return self.folder / self.checkpoint_uri

    def files(self, pattern: str) -> list[Path]:
        """Checkpoint files, by path."""
        return sorted(self.checkpoints.rglob(pattern))

    def write_spec(self) -> Path:
        """Write the spec again, after a setting was changed."""
        (self.folder / "schema.json").write_text(json.dumps(OUTPUT_SCHEMA))
        sections = [
            f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
            for name, table in self._spec().items()
        ]
        path = self.folder / "batch.toml"
        path.write_text("\n\n".join(sections))
        return path

    def start(self, *options: str, faults: dict[str, Any] | None = None, under: Sequence[str | Path] = ()) -> Run:
        """Start ``airflow-ai batch run``.

        :param faults: run it through :mod:`.runner`, with these faults in it
        :param under: the command that runs it (strace)
        """
        program = (
            [COMMAND] if faults is None else [sys.executable, "-m", "tests.faults.support.runner", json.dumps(faults)]
        )
        return self._launch([*under, *program, "batch", "run", self.write_spec(), *options])

    def run(self, *options: str, code: int = 0, seconds: float = RUN_SECONDS, **how: Any) -> Finished:
        """Run it to its end, which must be this exit code."""
        return self.start(*options, **how).expect(code, seconds=seconds)

    def status(self) -> dict[str, Any]:
        """What ``airflow-ai batch status`` says."""
        report = self._launch([COMMAND, "batch", "status", self.write_spec(), "--json"]).expect(0).report
        assert report is not None
        return report

    def rows(self) -> list[Row]:
        """What stands in the table, by id."""
        return sorted(read_rows(self.sink_url), key=lambda row: (str(row["visit_id"]), str(row["_inferred_at"])))

    def _launch(self, command: Sequence[str | Path]) -> Run:
        environment = child_environment(self.environment) | {"PYTHONDONTWRITEBYTECODE": "1"}
        run = Run(command, output=self.folder / f"run-{len(self.runs):02d}", environment=environment)
        self.runs.append(run)
        return run

    def _spec(self) -> dict[str, dict[str, Any]]:
        return {
            "input": {
                "uri": f"{self.dataset.folder}/*.parquet",
                "id_column": "visit_id",
                "columns": ["a", "note"],
                "rows_per_partition": -(-self.dataset.rows // self.partitions),
            },
            "endpoint": {
                "url": self.stub.url,
                "protocol": "json",
                "model": "m",
                "path": "/predict",
                "output_schema": "schema.json",
                **self.endpoint,
            },
            "limits": self.limits,
            "checkpoint": {"uri": self.checkpoint_uri, "interval_seconds": self.interval_seconds},
            "sink": {"url": self.sink_url, "table": TABLE},
            **({"encryption": self.encryption} if self.encryption else {}),
        }
