"""A synchronous call against every server that hangs: when its answer comes, and when its process is free to go.

    python -m benchmarks.sync_hangs

Deadlines are random in [0.2, 5.0] s. Most cases are forks of a process that has imported everything, several at a time,
since they mostly wait; servers that keep a core busy get one case at a time, with nothing else running. Then some cases
in interpreters of their own. All share one store, in SQLite, whose circuit breaker is set so that it never opens. The
servers count: every call must have reached the one it was sent to. In between, some processes only sleep until their
deadline: their row says how late and how slow to exit the machine itself makes a process at that time.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import measure
from benchmarks.hostile import HANGS, SCENARIOS, HangingDns, HostileServer, hanging_dns, hostile_servers
from benchmarks.sync_case import Case

DNS = "dns-hangs"
SLEEPS = "(sleeps)"
SHORTEST, LONGEST = 0.2, 5.0
UNCOUNTED = {DNS, "never-accepts"}  # no server process sees these calls come
_MODULE = [sys.executable, "-m", "benchmarks.sync_case"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """A case of a scenario, and what came of it: the report of `sync_case` with the process's exit."""

    scenario: str
    fresh: bool
    report: Mapping[str, Any]

    @property
    def wrong(self) -> bool:
        """Whether it was no degraded answer with the right reason, or its process failed."""
        if self.scenario == SLEEPS:
            return self.report["status"] != 0
        allowed = ("timeout",) if self.scenario == DNS else SCENARIOS[self.scenario].reasons
        return self.report.get("reason") not in allowed or self.report["status"] != 0


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.call_options("Deadline and exit of calls that hang.", calls=16, quick_calls=1)
    parser.add_argument("--fresh", type=int, default=3, help="calls of each kind in an interpreter of their own")
    parser.add_argument("--together", type=int, default=6, help="calls at a time")
    parser.add_argument("--only", nargs="*", default=[*HANGS, DNS], help="names of scenarios")
    options = measure.read_options(parser, arguments)
    print(f"seed {options.seed}")
    servers = [name for name in options.only if name != DNS]
    with (
        TemporaryDirectory(prefix="store-") as folder,
        hanging_dns() as dns,
        hostile_servers(servers, seed=options.seed) as running,
    ):
        played = asyncio.run(_play_all(options, running, dns, f"sqlite:///{Path(folder, 'store.db')}"))
        _check_counts(running, dns, played)
    rows = [_row(name, [one for one in played if one.scenario == name]) for name in [*options.only, SLEEPS]]
    return measure.report("sync_hangs", vars(options), rows, _claims([o for o in played if o.scenario != SLEEPS]))


async def _play_all(options: Any, servers: Mapping[str, HostileServer], dns: HangingDns, store: str) -> list[Played]:
    chance = random.Random(options.seed)
    forked = _cases(options.only, options.calls, servers, chance, store)
    fresh = _cases(options.only, 1 if options.quick else options.fresh, servers, chance, store)
    played = []
    async with _ForkServer.started(_MODULE) as forks, _ForkServer.started(dns.command(_MODULE)) as dns_forks:

        async def fork(name: str, case: Case) -> Played:
            report = await (dns_forks if name == DNS else forks).play(case)
            return Played(scenario=name, fresh=False, report=report)

        async def start(name: str, case: Case) -> Played:
            command = [*_MODULE, case.line()]
            return Played(
                scenario=name, fresh=True, report=await _fresh(dns.command(command) if name == DNS else command)
            )

        for play, cases, together in ((fork, forked, options.together), (start, fresh, 1)):
            quiet = [(name, case) for name, case in cases if not _busy(name)]
            busy = [(name, case) for name, case in cases if _busy(name)]
            played += await _some_at_a_time(play, quiet, together)
            played += await _some_at_a_time(play, busy, 1)
    return played


def _busy(name: str) -> bool:
    return name in SCENARIOS and SCENARIOS[name].busy


def _cases(
    names: Sequence[str], each: int, servers: Mapping[str, HostileServer], chance: random.Random, store: str
) -> list[tuple[str, Case]]:
    """In random order, with random deadlines."""
    order = [*names, SLEEPS] * each
    chance.shuffle(order)
    cases = [(name, _case(name, servers.get(name), chance.uniform(SHORTEST, LONGEST))) for name in order]
    return [(name, replace(case, store=store)) for name, case in cases]


def _case(name: str, server: HostileServer | None, deadline: float) -> Case:
    if name == SLEEPS:
        return Case(url="", deadline_seconds=deadline)
    if server is None:
        return Case(url=f"http://{HangingDns.HOST}", deadline_seconds=deadline)
    if server.scenario.scheme == "grpc":
        return Case(url=server.url, deadline_seconds=deadline, protocol="open-inference-grpc")
    path = f"/late/{deadline + 0.05:.3f}" if name == "answers-late" else "/predict"
    return Case(url=server.url, deadline_seconds=deadline, path=path, ca_file=server.ca_file)


async def _some_at_a_time(play: Any, cases: Iterable[tuple[str, Case]], together: int) -> list[Played]:
    places = asyncio.Semaphore(together)

    async def one(name: str, case: Case) -> Played:
        async with places:
            return await play(name, case)

    return await asyncio.gather(*(one(name, case) for name, case in cases))


class _ForkServer:
    """`sync_case` forking for one case after the other; reports come back in any order, by number."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def started(cls, command: Sequence[str]) -> AsyncIterator[_ForkServer]:
        """Running until the block ends."""
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=measure.ROOT
        )
        server = cls(process)
        try:
            yield server
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()
            await server._reading

    async def play(self, case: Case) -> dict[str, Any]:
        """The report on a case."""
        assert self._process.stdin is not None
        number = len(self._waiting)
        report = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(replace(case, number=number).line().encode() + b"\n")
        return await report

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            report = json.loads(line)
            self._waiting[report["number"]].set_result(report)
        for report in self._waiting.values():
            if not report.done():
                report.set_exception(RuntimeError("the process that forks has ended, see its stderr"))


async def _fresh(command: Sequence[str]) -> dict[str, Any]:
    """A case in an interpreter of its own, to the end of the process."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=measure.ROOT)
    assert process.stdout is not None
    line = await process.stdout.readline()
    status = await process.wait()
    ended = time.monotonic()
    report = json.loads(line or b"{}")
    return report | {"exit_ms": (ended - report.get("done", ended)) * 1000, "status": status}


def _check_counts(servers: Mapping[str, HostileServer], dns: HangingDns, played: Sequence[Played]) -> None:
    """Every call that a fork sent reached its server, and the server without a way in still had none."""
    for name, server in servers.items():
        # In an interpreter of its own a short deadline may end before the connection is made.
        sent = sum(one.report.get("sent", 0) for one in played if one.scenario == name and not one.fresh)
        seen = server.stats()["connections"]
        if name not in UNCOUNTED and seen < sent:
            raise RuntimeError(f"{name}: {sent} calls sent, {seen} connections at the server")
    asked = sum(one.scenario == DNS for one in played)
    if dns.queries() < asked:
        raise RuntimeError(f"{asked} look-ups, {dns.queries()} queries at the name server")
    if "never-accepts" in servers:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(("127.0.0.1", servers["never-accepts"].port))
            except TimeoutError:
                return
        raise RuntimeError("never-accepts accepted a connection")


def _row(name: str, played: Sequence[Played]) -> dict[str, Any]:
    late = [one.report["late_ms"] for one in played if not one.fresh]
    fresh = [one.report["late_ms"] for one in played if one.fresh]
    exits = [one.report["exit_ms"] for one in played]
    return {
        "server": name,
        "calls": len(played),
        "late_p50_ms": measure.quantile(late, 0.5),
        "late_p99_ms": measure.quantile(late, 0.99),
        "late_fresh_max_ms": max(fresh),
        "exit_p50_ms": measure.quantile(exits, 0.5),
        "exit_max_ms": max(exits),
        "reasons": "/".join(sorted({str(one.report.get("reason", "")) for one in played})),
        "without_store": sum(one.report.get("breaker", "closed") != "closed" for one in played),
        "wrong": sum(one.wrong for one in played),
    }


def _claims(played: Sequence[Played]) -> list[measure.Claim]:
    late = [one.report["late_ms"] for one in played]
    exits = [one.report["exit_ms"] for one in played]
    fresh = [one.report["exit_ms"] for one in played if one.fresh]
    return [
        measure.Claim(what="calls", measured=len(played), limit=200, at_most=False),
        measure.Claim(what="without a degraded answer and its reason", measured=sum(o.wrong for o in played), limit=0),
        measure.Claim(what="answer after the deadline, p50, ms", measured=measure.quantile(late, 0.5), limit=100),
        measure.Claim(what="answer after the deadline, p99, ms", measured=measure.quantile(late, 0.99), limit=100),
        measure.Claim(what="process exit after its work, p99, ms", measured=measure.quantile(exits, 0.99), limit=200),
        measure.Claim(what="exit of fresh interpreters, p99, ms", measured=measure.quantile(fresh, 0.99), limit=200),
    ]


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
