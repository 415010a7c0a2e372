"""The audit: events per second of eight processes, what it adds to a synchronous call, and how fast it is verified.

    python -m benchmarks.audit

PostgreSQL with fsync. Appending: eight processes of a few threads each, every event durable before the next one of its
thread; beside them, alternately, as many processes and threads that insert the same rows bare, one commit each. Calls:
one process with the audit and one endpoint without, in turns; each audited call keeps two events, one after the other.
Verifying: the command line over what was appended, beside a bare SHA-256 loop over as many bytes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from airflow_provider_ai.adapters.audit.opening import epoch_us, open_audit_log
from airflow_provider_ai.adapters.audit.signing import new_key_pair
from airflow_provider_ai.adapters.store import open_store
from airflow_provider_ai.core.audit import Actor, AuditAction, AuditEvent, AuditOutcome, Position, digest_of
from airflow_provider_ai.core.audit_chain import Row, next_row, start_of
from airflow_provider_ai.core.audit_settings import AuditSettings
from airflow_provider_ai.core.config import EndpointSettings
from airflow_provider_ai.core.fallback import Static
from airflow_provider_ai.core.requests import JsonRequest
from airflow_provider_ai.runtime.auditing import Audit
from airflow_provider_ai.runtime.sync_call import SyncCaller
from benchmarks import measure
from benchmarks.stub import StubServer
from tests.support.postgres import PostgresServer, postgres_server

PROCESSES = 8
_ACTOR = Actor(kind="airflow", role="worker", user="u", dag_id="triage", task_id="ask", run_id="manual__2026-11-24")
_COMMAND = (sys.executable, "-c", "from airflow_provider_ai.cli import program; program()")
_INSERT = "INSERT INTO ai_audit_events VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
_FIGURES = ("per second", "p50_ms", "p99_ms", "CPU µs", "peak MiB")
_PER_SECOND, _CALL_MS, _VERIFY = 3_000, 1.0, 200_000


def main(arguments: list[str] | None = None) -> bool:
    """Run the benchmark; whether its claims hold."""
    parser = measure.common_options("The audit. --rows: events to verify.", rows=600_000, quick_rows=20_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of appending")
    parser.add_argument("--threads", type=int, default=4, help="in each of the eight processes")
    parser.add_argument("--calls", type=int, default=1_000)
    options = measure.read_options(parser, arguments)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="audit-") as folder, postgres_server(durable=True) as server:
        case = Case(Path(folder), server, seconds=options.seconds, threads=options.threads)
        rows += case.calls(options.calls)  # first: later the disk is busy with what was appended
        for _ in range(options.repeats):
            rows += [case.appended("bare"), case.appended("product")]
        rows += case.verified(options.rows, options.repeats)
    return measure.report("audit", vars(options), rows, _claims(rows))


def _claims(rows: Sequence[dict[str, Any]]) -> list[measure.Claim]:
    def of(side: str, figure: str) -> list[float]:
        return [row[figure] for row in rows if row["side"] == side]

    appended, bare = of("append, product", "per second"), of("append, bare", "per second")
    verified, hashed = of("verify, product", "per second"), of("verify, bare SHA-256", "per second")
    added = of("call, added by the audit", "p50_ms")[0] / 2
    return [
        measure.Claim(
            what="events/s appended by 8 processes", measured=median(appended), limit=_PER_SECOND, at_most=False
        ),
        measure.Claim(what="… over bare INSERTs", measured=measure.ratio(appended, bare), limit=0.3, at_most=False),
        measure.Claim(what="added to a call for each event, p50, ms", measured=added, limit=_CALL_MS),
        measure.Claim(what="events/s verified", measured=median(verified), limit=_VERIFY, at_most=False),
        measure.Claim(
            what="… over a bare SHA-256 loop", measured=measure.ratio(verified, hashed), limit=0.05, at_most=False
        ),
        measure.Claim(what="peak memory of verifying, MiB", measured=max(of("verify, product", "peak MiB")), limit=250),
    ]


class Case:
    """One PostgreSQL; a database of its own for every run."""

    def __init__(self, folder: Path, server: PostgresServer, *, seconds: float, threads: int) -> None:
        self._folder = folder
        self._server = server
        self._seconds = seconds
        self._threads = threads
        self._private, public = new_key_pair()
        self._public = folder / "audit.pub.pem"
        self._public.write_text(public)
        self._runs = 0

    def appended(self, side: str) -> dict[str, Any]:
        """Eight processes that append, or insert bare, for a while; counted in the table."""
        url, heads = self._database()
        order = {
            "side": side,
            "url": url,
            "heads": heads,
            "private": self._private,
            "seconds": self._seconds,
            "threads": self._threads,
        }
        command = [sys.executable, "-m", "benchmarks.audit", "--member", json.dumps(order)]
        runs: list[measure.Measured] = []
        members = [threading.Thread(target=lambda: runs.append(measure.run(command))) for _ in range(PROCESSES)]
        for member in members:
            member.start()
        for member in members:
            member.join()
        told = [run.require_success().last_json() for run in runs]
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM ai_audit_events").fetchone()
        events = sum(each["events"] for each in told)
        assert found is not None
        assert found[0] == events + (PROCESSES if side == "product" else 0), (found, events)
        seconds = median(each["seconds"] for each in told)
        p50 = median(each["p50_ms"] for each in told)
        return _row(f"append, {side}", events, **{"per second": events / seconds, "p50_ms": p50})

    def calls(self, calls: int) -> list[dict[str, Any]]:
        """Calls with the audit and without it, in turns."""
        url, heads = self._database()
        audit = Audit(settings=_settings(url, heads, self._private), actor=_ACTOR)
        with StubServer(latency_ms=0) as stub, _caller(stub.url, None) as plain, _caller(stub.url, audit) as kept:

            def timed(caller: SyncCaller) -> float:
                began = time.perf_counter()
                answer = caller.call({"age": 63, "pulse": 118})
                assert not answer.degraded, answer.reason
                return (time.perf_counter() - began) * 1000

            pairs = [(timed(kept), timed(plain)) for _ in range(50 + calls)][50:]
        sides = {
            "call, audited": [pair[0] for pair in pairs],
            "call, plain": [pair[1] for pair in pairs],
            "call, added by the audit": [pair[0] - pair[1] for pair in pairs],
            "one commit, bare": self._commits(url, calls),
        }
        return [
            _row(side, calls, p50_ms=median(took), p99_ms=measure.quantile(took, 0.99)) for side, took in sides.items()
        ]

    def verified(self, events: int, repeats: int) -> list[dict[str, Any]]:
        """The command line over so many events of one chain, and the hashing alone."""
        url, heads = self._database()
        self._fill(url, heads, events)
        rows: list[dict[str, Any]] = []
        for _ in range(repeats):
            rows.append(_row("verify, bare SHA-256", events, **{"per second": _hashed(events)}))
            place = ("--store", url, "--heads", heads, "--public-key", str(self._public))
            run = measure.run((*_COMMAND, "audit", "verify", *place)).require_success()
            told = run.last_json()
            assert told["whole"], told
            assert told["events"] == events + 1, told
            figures = {
                "per second": told["events_per_second"],
                "CPU µs": run.cpu_seconds / events * 1e6,
                "peak MiB": run.peak_rss_mib,
            }
            rows.append(_row("verify, product", events, **figures))
        return rows

    def _commits(self, url: str, number: int) -> list[float]:
        """Milliseconds of one-row commits on this disk."""
        took = []
        with psycopg.connect(url, autocommit=True) as connection:
            for row in _rows("20260101T000000Z-000000000000", number):
                began = time.perf_counter()
                connection.execute(_INSERT, row)
                took.append((time.perf_counter() - began) * 1000)
        return took

    def _fill(self, url: str, heads: str, events: int) -> None:
        log = open_audit_log(_settings(url, heads, self._private), _ACTOR)
        for start in range(0, events, 10_000):
            log.append([_event(number) for number in range(start, min(events, start + 10_000))])
        log.close()

    def _database(self) -> tuple[str, str]:
        """A database with the tables, and a folder for heads."""
        self._runs += 1
        url = self._server.url(self._server.create_database())
        with closing(open_store(url, timeout_seconds=30)) as store:
            store.upgrade()
        return url, str(self._folder / f"heads-{self._runs}")


def _row(side: str, events: int, **figures: Any) -> dict[str, Any]:
    return {"side": side, "events": events, **dict.fromkeys(_FIGURES, ""), **figures}


def _settings(url: str, heads: str, private: str) -> AuditSettings:
    return AuditSettings(store=url, hmac_key=b"k" * 32, heads=heads, signing_key=private, timeout_seconds=30.0)


def _caller(url: str, audit: Audit | None) -> SyncCaller:
    endpoint = EndpointSettings(url=url, protocol="json", model="m")
    return SyncCaller(endpoint=endpoint, request=JsonRequest(), fallback=[Static({"priority": "routine"})], audit=audit)


def _event(number: int) -> AuditEvent:
    keys = number.to_bytes(16, "big")
    return AuditEvent(
        action=AuditAction.INFER,
        outcome=AuditOutcome.INTENDED,
        actor=_ACTOR,
        at_us=epoch_us(),
        keys=keys,
        records=1,
        digest=digest_of(keys),
        purpose="TREAT",
        model="triage-7",
        prompt_hash="0123456789abcdef",
        reference="models.example:443/triage-7-0123abcd",
    )


def _rows(writer: str, number: int) -> list[Row]:
    rows, end = [], start_of(writer)
    for count in range(number):
        rows.append(next_row(end, _event(count)))
        end = Position(writer, rows[-1].sequence, rows[-1].hash)
    return rows


def _hashed(events: int) -> float:
    """Hashes a second of nothing but hashing, of as many bytes as an event has."""
    bound = b"x" * (sum(len(str(part)) for part in _rows("20260101T000000Z-000000000000", 1)[0][:5]) + 250)
    previous, sha256 = bytes(32), hashlib.sha256
    began = time.perf_counter()
    for _ in range(events):
        previous = sha256(previous + bound).digest()
    return events / (time.perf_counter() - began)


# --- one of the eight processes


def member(order: dict[str, Any]) -> None:
    """Append from some threads until time is up; the last line of output says how many."""
    began = time.monotonic()
    took: list[float] = []
    working = [threading.Thread(target=_work, args=(order, number, took)) for number in range(order["threads"])]
    log = _opened(order)
    began = time.monotonic()
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    seconds = time.monotonic() - began
    if log is not None:
        log.close()
    print(json.dumps({"events": len(took), "seconds": seconds, "p50_ms": median(took) * 1000}))


def _opened(order: dict[str, Any]) -> Any:
    if order["side"] == "bare":
        return None
    log = open_audit_log(_settings(order["url"], order["heads"], order["private"]), _ACTOR)
    log.prepare()
    return log


def _work(order: dict[str, Any], number: int, took: list[float]) -> None:
    keep = _bare(order, number) if order["side"] == "bare" else _product(order)
    end, count = time.monotonic() + order["seconds"], 0
    while time.monotonic() < end:
        began = time.perf_counter()
        keep(count)
        took.append(time.perf_counter() - began)
        count += 1


def _product(order: dict[str, Any]) -> Callable[[int], None]:
    log = _opened(order)
    return lambda count: log.append([_event(count)])


def _bare(order: dict[str, Any], number: int) -> Callable[[int], None]:
    connection = psycopg.connect(order["url"], autocommit=True)
    writer = f"{time.time_ns()}-{number}"
    row = _rows(writer, 1)[0]

    def keep(count: int) -> None:
        connection.execute(_INSERT, row._replace(sequence=count))

    return keep


if __name__ == "__main__":
    if sys.argv[1:2] == ["--member"]:
        member(json.loads(sys.argv[2]))
    else:
        raise SystemExit(0 if main() else 1)
