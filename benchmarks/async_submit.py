"""Submitting from one process: jobs per second and memory, beside the same messages sent bare.

    python -m benchmarks.async_submit

The product is its command line: it checks the file, puts every job into a store (SQLite), sends its message and marks
it. The bare side sends the same bytes from eight threads and does nothing else. Both are whole processes, alternately,
against one MiniStack; what has arrived is counted at the queue.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from airflow_provider_ai.core.jobs import Content, job_id
from airflow_provider_ai.core.messages import RequestMessage, encode_request
from benchmarks import measure
from tests.support.ministack import MiniStack, ministack

_TEXT = "note " * 20
_COMMAND = (sys.executable, "-c", "from airflow_provider_ai.cli import program; program()")


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("Submitting, beside bare sends. --rows: jobs.", rows=100_000, quick_rows=2_000)
    parser.set_defaults(repeats=3)
    options = measure.read_options(parser, arguments)
    with TemporaryDirectory(prefix="submit-") as folder, ministack(services="sqs") as server:
        case = Case(options.work or Path(folder), server)
        rows = [case.product(max(1, options.rows // 10))]
        for _ in range(options.repeats):
            rows += [case.bare(options.rows), case.product(options.rows)]
    return measure.report("async_submit", vars(options), rows, _claims(rows, options.rows))


def _claims(rows: Sequence[Mapping[str, Any]], jobs: int) -> list[measure.Claim]:
    def of(side: str, figure: str, count: int = jobs) -> list[float]:
        return [row[figure] for row in rows if row["side"] == side and row["jobs"] == count]

    small, large = (median(of("product", "peak MiB", count)) for count in (max(1, jobs // 10), jobs))
    return [
        measure.Claim(
            what="jobs/s of the product over messages/s sent bare",
            measured=measure.ratio(of("product", "per second"), of("bare", "per second")),
            limit=0.8,
            at_most=False,
        ),
        measure.Claim(what="peak memory over that of a tenth of the jobs", measured=large / small, limit=1.15),
        measure.Claim(what="peak memory, MiB", measured=large, limit=250),
    ]


class Case:
    """One MiniStack; queues and a store of its own for every run."""

    def __init__(self, folder: Path, server: MiniStack) -> None:
        self._folder = folder
        self._server = server
        self._sqs = server.client("sqs")

    def bare(self, jobs: int) -> dict[str, Any]:
        """The messages of as many jobs, sent."""
        file, queue = self._folder / "messages.jsonl", f"bare-{uuid4().hex[:8]}"
        if not file.exists():
            with file.open("wb") as lines:
                lines.writelines(_message(number) + b"\n" for number in range(jobs))
        self._sqs.create_queue(QueueName=queue)
        program = ("-m", "benchmarks.baselines.bare_send", self._server.url, queue, str(file))
        return self._measured("bare", queue, jobs, [sys.executable, *program])

    def product(self, jobs: int) -> dict[str, Any]:
        """As many jobs, submitted."""
        file, tag = self._folder / f"requests-{jobs}.jsonl", uuid4().hex[:8]
        if not file.exists():
            with file.open("wb") as lines:
                lines.writelines(_request(number) + b"\n" for number in range(jobs))
        names = [f"{kind}-{tag}" for kind in ("requests", "results", "dead")]
        for name in names:
            self._sqs.create_queue(QueueName=name)
        spec = self._folder / f"{tag}.toml"
        spec.write_text(_SPEC.format(url=self._server.url, requests=names[0], results=names[1], dead=names[2], tag=tag))
        command = (*_COMMAND, "jobs", "submit", str(spec), "--input", str(file), "--key", "k", "--quiet")
        return self._measured("product", names[0], jobs, command)

    def _measured(self, side: str, queue: str, jobs: int, command: Sequence[str]) -> dict[str, Any]:
        done = measure.run(command, env=self._server.environment()).require_success()
        url = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        name = "ApproximateNumberOfMessages"
        arrived = int(self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])
        assert arrived == jobs, f"{arrived} of {jobs} messages are in the queue"
        self._sqs.delete_queue(QueueUrl=url)
        return {
            "side": side,
            "jobs": jobs,
            "seconds": done.wall_seconds,
            "per second": jobs / done.wall_seconds,
            "CPU µs per job": done.cpu_seconds / jobs * 1e6,
            "peak MiB": done.peak_rss_mib,
        }


_SPEC = """\
[transport]
kind = "sqs"
endpoint_url = "{url}"
region = "us-east-1"
request_queue = "{requests}"
result_queue = "{results}"
dead_letter_queue = "{dead}"
[store]
url = "sqlite:///{tag}.db"
"""


def _request(number: int) -> bytes:
    return json.dumps({"n": number, "text": _TEXT}, separators=(",", ":")).encode()


def _message(number: int) -> bytes:
    payload = Content(sha256="0" * 64, inline=_request(number))
    name = job_id("bare", number)
    return encode_request(RequestMessage(job_id=name, source="/airflow-ai/submitter", time=1.8e9, payload=payload))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
