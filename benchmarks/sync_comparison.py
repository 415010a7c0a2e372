"""The same bad servers, met by three operators: Airflow's HttpOperator, common-ai's LLMOperator, and this package's.

    make bench-compare        # makes .venvs/compare, runs this with --write

Each is executed in a process of its own with what its user would set for a deadline of 3 s, and is killed after 60 s.
HttpOperator gets `timeout`, and in a second column also Airflow's `execution_timeout`. LLMOperator gets a fallback
connection to a server that works, and `timeout` in its model settings, or else `request_timeout`. Ours has a static
fallback. Servers and processes are real; what a cell says was measured in this run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_ai.adapters.store import open_store
from benchmarks import measure
from benchmarks.hostile import SCENARIOS, HangingDns, HostileServer, hanging_dns, hostile_servers
from benchmarks.stub import StubServer
from benchmarks.sync_contender import BEGUN, SPARE, Contender

PYTHON = measure.ROOT / ".venvs" / "compare" / "bin" / "python"
DOCUMENT = measure.ROOT / "docs" / "sync-call.md"
BEGIN, END = "<!-- measured by benchmarks/sync_comparison.py: begin -->", "<!-- end -->"
DEADLINE_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
START_SECONDS = 0.7  # what a first execution may import before its deadline begins: see sync_import
EXIT_SECONDS = 5.0  # what an interpreter full of Airflow takes to end, on a busy machine
DNS = "dns-hangs"
SERVERS = (
    "good",
    "refuses",
    "never-accepts",
    "never-answers",
    "tls-stalls",
    DNS,
    "drips-headers",
    "drips-body",
    "endless-body",
    "large-body",
    "closes-unanswered",
    "truncated-json",
    "status-503",
    "html",
)
CONTENDERS = {
    "HttpOperator, `timeout`": Contender(operator="http", deadline_seconds=DEADLINE_SECONDS, timeout="timeout"),
    "HttpOperator, `timeout` and `execution_timeout`": Contender(
        operator="http", deadline_seconds=DEADLINE_SECONDS, timeout="timeout", execution_timeout=True
    ),
    "LLMOperator, `timeout`": Contender(operator="llm", deadline_seconds=DEADLINE_SECONDS, timeout="timeout"),
    "LLMOperator, `request_timeout`": Contender(
        operator="llm", deadline_seconds=DEADLINE_SECONDS, timeout="request_timeout"
    ),
    "AISyncCallOperator": Contender(operator="ours", deadline_seconds=DEADLINE_SECONDS),
}
OURS = "AISyncCallOperator"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What the caller got from one server. `report` is empty when its process was killed before it got anything.

    Args:
        server, contender: names.
        report: of `sync_contender`.
        killed: whether the process had to be.
        exit_seconds: from the end of the work to the end of the process.
    """

    server: str
    contender: str
    report: Mapping[str, Any]
    killed: bool
    exit_seconds: float

    @property
    def in_time(self) -> bool:
        """Whether there was an answer, its own or a fallback, by the deadline, and the process ended soon after."""
        report = self.report
        answered = report.get("answer") is True or "fallback" in report
        return answered and report["seconds"] <= DEADLINE_SECONDS + START_SECONDS and self.exit_seconds <= EXIT_SECONDS

    def cell(self) -> str:
        """For the table."""
        report = self.report
        if not report:
            return f"**hangs** (killed after {PATIENCE_SECONDS:g} s)"
        after = f"{report['seconds']:.1f} s"
        if self.killed:
            after += f", **process does not exit** (killed after {PATIENCE_SECONDS:g} s)"
        elif self.exit_seconds > EXIT_SECONDS:
            after += f", exits {self.exit_seconds:.1f} s later"
        if "error" in report:
            return f"fails: {report['error']}, {after}"
        if "fallback" in report:
            return f"fallback ({report['fallback']}), {after}"
        if report["answer"]:
            return f"answer, {after}"
        return f"**takes {_size(report['bytes'])} for an answer**, {after}"


def main(arguments: list[str] | None = None) -> bool:
    """Run the comparison; whether this package's operator held its deadline everywhere."""
    parser = measure.call_options("Operators against bad servers.", calls=1, quick_calls=1)
    parser.add_argument("--together", type=int, default=2, help="processes at a time")
    parser.add_argument("--only", nargs="*", default=list(SERVERS), help="names of servers")
    parser.add_argument("--operators", nargs="*", default=["http", "llm", "ours"], choices=["http", "llm", "ours"])
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    options = measure.read_options(parser, arguments)
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON} is missing: run `make bench-compare`")
    contenders = {name: one for name, one in CONTENDERS.items() if one.operator in options.operators}
    with (
        tempfile.TemporaryDirectory(prefix="store-") as folder,
        hanging_dns() as dns,
        hostile_servers([name for name in options.only if name != DNS], seed=options.seed) as servers,
        StubServer(latency_ms=0) as spare,
    ):
        outcomes = asyncio.run(_all(contenders, options, servers, dns, spare, _made_store(Path(folder))))
        _check_counts(servers, dns, outcomes)
    text = _markdown(options.only, contenders, outcomes)
    print(text)
    if options.write:
        _write(text)
    ours = [outcome for outcome in outcomes if outcome.contender == OURS]
    late = sum(not outcome.in_time for outcome in ours)
    claims = [measure.Claim(what="of ours: no answer in time", measured=late, limit=0)] if ours else []
    return measure.report("sync_comparison", vars(options), [], claims)


async def _all(
    contenders: Mapping[str, Contender],
    options: Any,
    servers: Mapping[str, HostileServer],
    dns: HangingDns,
    spare: StubServer,
    store: Path,
) -> list[Outcome]:
    places = asyncio.Semaphore(options.together)
    alone = asyncio.Lock()

    async def one(server: str, name: str, contender: Contender) -> Outcome:
        environment = _connections(contender.operator, server, servers.get(server), spare)
        command = [str(PYTHON), "-m", "benchmarks.sync_contender", contender.line()]
        async with places:
            ended = await _execute(dns.command(command) if server == DNS else command, environment, store)
        return Outcome(server=server, contender=name, **ended)

    async def busy_one(server: str, name: str, contender: Contender) -> Outcome:
        async with alone:
            return await one(server, name, contender)

    quiet = [server for server in options.only if not _busy(server)]
    busy = [server for server in options.only if _busy(server)]
    outcomes = await asyncio.gather(*(one(server, *named) for server in quiet for named in contenders.items()))
    return outcomes + await asyncio.gather(
        *(busy_one(server, *named) for server in busy for named in contenders.items())
    )


def _made_store(folder: Path) -> Path:
    """A store with its tables, for copies: a deployment makes them once."""
    file = folder / "store.db"
    store = open_store(f"sqlite:///{file}")
    store.upgrade()
    store.close()
    return file


def _busy(server: str) -> bool:
    return server != DNS and SCENARIOS[server].busy


def _connections(operator: str, name: str, server: HostileServer | None, spare: StubServer) -> dict[str, str]:
    """The environment of one process: `model` is the bad server, `spare_model` works."""
    host = HangingDns.HOST if server is None else "127.0.0.1"
    port = 80 if server is None else server.port
    scheme = "http" if server is None else server.scenario.scheme
    model = {"conn_type": "http", "host": host, "port": port, "schema": scheme}
    llm = {"conn_type": "pydanticai", "password": "none", "extra": {"model": "openai-chat:m"}}
    if operator == "llm":
        model = llm | {"host": f"{scheme}://{host}:{port}/v1"}
    if operator == "ours":
        model |= {"conn_type": "ai_endpoint", "extra": {"protocol": "json", "model": "m"}}
    spare_model = llm | {"host": f"{spare.url}/v1", "extra": {"model": f"openai-chat:{SPARE}"}}
    return {
        "AIRFLOW_CONN_MODEL": json.dumps(model),
        "AIRFLOW_CONN_SPARE_MODEL": json.dumps(spare_model),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
    }


def _store(home: str, template: Path) -> dict[str, str]:
    """The connection of this package's store: each process has its own, so that no circuit breaker is open yet."""
    copy = shutil.copy(template, home)
    return {"AIRFLOW_CONN_AI_STORE": json.dumps({"conn_type": "sqlite", "host": copy})}


async def _execute(command: Sequence[str], environment: Mapping[str, str], store: Path) -> dict[str, Any]:
    """What became of the process, as fields of an `Outcome`; it is killed when it takes too long."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=measure.ROOT,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "AIRFLOW_HOME": home, **_store(home, store), **environment},
            start_new_session=True,
        )
        assert process.stdout is not None
        report: dict[str, Any] = {}
        killed = False
        try:
            begun = await process.stdout.readuntil(BEGUN.encode() + b"\n")
            assert begun.endswith(BEGUN.encode() + b"\n")
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for line in process.stdout:
                    if line.startswith(b"{"):
                        report = json.loads(line)
                await process.wait()
        except TimeoutError:
            killed = True
            os.killpg(process.pid, signal.SIGKILL)
        except asyncio.IncompleteReadError:
            raise RuntimeError(f"the operator could not be executed: {' '.join(command)}") from None
        ended = time.monotonic()
        await process.wait()
    return {"report": report, "killed": killed, "exit_seconds": ended - report.get("done", ended)}


def _check_counts(servers: Mapping[str, HostileServer], dns: HangingDns, outcomes: Sequence[Outcome]) -> None:
    """Every process reached the server it was pointed at, where one can see that."""
    for name in {outcome.server for outcome in outcomes} - {"refuses", "never-accepts"}:
        processes = sum(outcome.server == name for outcome in outcomes)
        seen = dns.queries() if name == DNS else servers[name].stats()["connections"]
        if seen < processes:
            raise RuntimeError(f"{name}: {processes} processes, {seen} connections or queries")


def _markdown(names: Sequence[str], contenders: Mapping[str, Contender], outcomes: Sequence[Outcome]) -> str:
    cells = {(outcome.server, outcome.contender): outcome.cell() for outcome in outcomes}
    rows = [["the server …", *contenders], ["---"] * (1 + len(contenders))]
    rows += [[_does(name), *(cells[name, contender] for contender in contenders)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _does(name: str) -> str:
    return "has a name whose look-up hangs" if name == DNS else SCENARIOS[name].does


def _size(count: int) -> str:
    return f"{count / 1024**2:.0f} MiB" if count >= 1024**2 else f"{count} bytes"


def _write(text: str) -> None:
    """Between the marks in the document."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{DOCUMENT} must have the lines {BEGIN} and {END}")
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
    print(f"wrote {DOCUMENT}")


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
