"""The stub model server: HTTP/1.1 on uvloop with exact latency, a hard limit in flight, counters and faults.

    python -m benchmarks.stub_server --port 0 --latency-ms 50 --max-in-flight 64

prints one JSON line {"port": …} on stdout when it listens on 127.0.0.1, and serves until SIGTERM.

Throughput is judged against max_in_flight / latency, so the latency has to be what it says: from the moment a request
has been read completely to the moment its response has been handed to the kernel. Invariants:
- event loop timers round to whole milliseconds, so due responses are driven by a timerfd, and the measured
  error of the mean is fed back as a lead of at most 0.9 ms; a response never leaves more than 1 ms early;
- responses are written with one write(2) when due, not queued for the loop's next turn;
- everything a response needs is computed when its request arrives, so that when it is due only the write remains;
- it shares two cores with the client it measures: no framework, no header dictionary, no per-request task.

Endpoints: POST /v2/models/{m}/infer, /v1/chat/completions, /v1/embeddings, any other path (protocol `json`);
GET /healthz, /v1/models, /v2/health/live, /v2/health/ready, /v2/models/{m}/ready;
GET /stats, /progress, /counts?stage=called|paid|answered&at_least=2, /faults; POST /reset, /faults.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import signal
import socket
import sys
import time
from collections import deque
from email.utils import formatdate
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import orjson
import uvloop

from benchmarks.stub_counters import ANSWERED, CALLED, MODES, PAID, STAGES, RecordId, Tally
from benchmarks.stub_faults import UNPAID, FaultPlan, FaultState, Rule
from benchmarks.stub_payloads import PROTOCOLS, BadRequest, Call, parse, respond
from benchmarks.stub_timing import Pacer, ServiceTimes

_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 422: b"Unprocessable Content"}
_REASONS |= {429: b"Too Many Requests", 500: b"Internal Server Error", 503: b"Service Unavailable"}
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_MAX_HEAD = 65_536
_monotonic = time.monotonic


class Exchange:
    """One model request from its last byte read to its last byte written."""

    __slots__ = ("answer", "began", "conn", "fault", "ids", "latency", "status")

    def __init__(self, conn: Connection, ids: list[RecordId], answer: bytes, latency: float) -> None:
        self.conn = conn
        self.ids = ids
        self.answer = answer
        self.latency = latency
        self.began = 0.0
        self.status = 200
        self.fault: Rule | None = None


class Server:
    """What all connections share: limits, faults, counters and the pacer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        plan: FaultPlan,
        tally: Tally,
        max_in_flight: int,
        queue: bool,
        protocol: str,
    ) -> None:
        self.loop = loop
        self.pacer = Pacer(loop)
        self.faults = FaultState(plan, _monotonic())
        self.tally = tally
        self.times = ServiceTimes()
        self.max_in_flight = max_in_flight
        self.protocol = protocol
        self._queues = queue
        self._waiting: deque[Exchange] = deque()
        self.connections: set[Connection] = set()
        self.in_flight = 0
        self.queued = 0
        self._first_read: float | None = None
        self._last_written: float | None = None
        self._cpu = time.process_time()

    def accept(self, conn: Connection, path: str, body: bytes) -> None:
        """Take one model request that has been read completely."""
        now = _monotonic()
        if self._first_read is None:
            self._first_read = now
        try:
            call = parse(path, body, self.protocol)
        except BadRequest as error:
            self.tally.count(CALLED, [])
            self._reject(conn, 400, {"error": str(error)})
            return
        self.tally.count(CALLED, call.ids)
        plan = self.faults.plan
        fault = self.faults.match(call.ids, now) if plan.rules else None
        exchange = self._exchange(conn, call, plan, fault)
        exchange.began = now
        self._admit(exchange)

    def _exchange(self, conn: Connection, call: Call, plan: FaultPlan, fault: Rule | None) -> Exchange:
        latency = plan.latency_ms / 1000
        if plan.jitter_ms:
            latency += self.faults.random.uniform(-plan.jitter_ms, plan.jitter_ms) / 1000
        if fault is None:
            body = respond(call)
            return Exchange(conn, call.ids, _OK % len(body) + body, latency)
        return _struck(Exchange(conn, call.ids, b"", latency), call, fault)

    def _admit(self, exchange: Exchange) -> None:
        if self.in_flight >= self.max_in_flight:
            self._over_limit(exchange)
            return
        self.in_flight += 1
        self.tally.note_in_flight(self.in_flight)
        fault = exchange.fault
        if fault is None or fault.do not in UNPAID:
            self.tally.count(PAID, exchange.ids)
        if fault is not None and fault.do == "hang":
            exchange.conn.hanging = exchange
        elif exchange.latency <= 0:
            self._finish(exchange)
        else:
            self.pacer.at(exchange.began + exchange.latency, self._finish, exchange)

    def _over_limit(self, exchange: Exchange) -> None:
        if self._queues:
            self.queued += 1
            self._waiting.append(exchange)
            return
        error = {"error": f"more than {self.max_in_flight} requests in flight"}
        self._reject(exchange.conn, 429, error, b"Retry-After: 1\r\n")

    def _reject(self, conn: Connection, status: int, body: dict[str, Any], headers: bytes = b"") -> None:
        exchange = Exchange(conn, [], _message(status, orjson.dumps(body), headers), 0.0)
        exchange.status = status
        exchange.began = -1.0
        conn.send(exchange)

    def _finish(self, exchange: Exchange) -> None:
        """The response is due."""
        do = exchange.fault.do if exchange.fault is not None else ""
        if do in ("drop_before", "drop_after") or exchange.conn.closed:
            self.leave()
            exchange.conn.abort()
        elif do == "drop_half":
            self.leave()
            exchange.conn.send_half(exchange)
        elif do == "drip":
            self._drip(exchange)
        else:
            exchange.conn.send(exchange)

    def _drip(self, exchange: Exchange, sent: int = 0) -> None:
        pace = exchange.fault.seconds_per_byte if exchange.fault is not None else 0.0
        if exchange.conn.closed:
            self.leave()
        elif sent + 1 == len(exchange.answer):
            exchange.answer = exchange.answer[sent:]
            exchange.conn.send(exchange)
        else:
            exchange.conn.send_some(exchange.answer[sent : sent + 1])
            self.loop.call_later(pace, self._drip, exchange, sent + 1)

    def written(self, exchange: Exchange) -> None:
        """The whole response has been handed to the kernel."""
        now = _monotonic()
        self.tally.count_status(exchange.status)
        if exchange.status == 200:
            self._last_written = now
            self.tally.count(ANSWERED, exchange.ids)
            if exchange.fault is None:
                spent = now - exchange.began
                self.times.add(spent)
                if exchange.latency > 0:
                    self.pacer.observe(spent - exchange.latency)
        if exchange.began >= 0:
            self.leave()

    def leave(self) -> None:
        """One request is no longer in flight; a queued one takes its place."""
        self.in_flight -= 1
        if self._waiting:
            exchange = self._waiting.popleft()
            exchange.began = _monotonic()
            self._admit(exchange)

    def control(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON document for a request that is not a model call."""
        parts = urlsplit(target)
        if method == "POST":
            return self._post(parts.path, body)
        match parts.path:
            case "/stats":
                return 200, self.stats()
            case "/progress":
                return 200, self.progress()
            case "/counts":
                return self._counts(parse_qs(parts.query))
            case "/faults":
                return 200, self.faults.plan.document() | {"strikes": self.faults.strikes}
            case "/v1/models":
                return 200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "stub"}]}
            case "/healthz" | "/v2/health/live":
                return 200, {"live": True}
        if parts.path == "/v2/health/ready" or parts.path.endswith("/ready"):
            return (200 if self.faults.plan.ready else 503), {"ready": self.faults.plan.ready}
        return 404, {"error": "not found"}

    def _post(self, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/reset":
            self._reset()
            return 200, {}
        try:
            plan = self.faults.plan.changed(orjson.loads(body))
        except (ValueError, TypeError) as error:
            return 400, {"error": str(error)}
        self.faults = FaultState(plan, _monotonic())
        return 200, plan.document()

    def _counts(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        stage = query.get("stage", ["called"])[0]
        if stage not in STAGES:
            return 400, {"error": f"stage must be one of {', '.join(STAGES)}, got {stage!r}"}
        return 200, self.tally.counts(STAGES.index(stage), at_least=int(query.get("at_least", ["1"])[0]))

    def _reset(self) -> None:
        self.tally.reset()
        self.tally.note_in_flight(self.in_flight)
        self.times.reset()
        self.queued = 0
        self._first_read = self._last_written = None
        self._cpu = time.process_time()
        gc.collect()

    def progress(self) -> dict[str, int]:
        """The cheap part of `stats`, for polling."""
        tally = self.tally
        return {
            "requests": tally.requests(CALLED),
            "records": tally.records(CALLED),
            "paid": tally.records(PAID),
            "answered": tally.records(ANSWERED),
            "in_flight": self.in_flight,
        }

    def stats(self) -> dict[str, Any]:
        """Everything counted since the last reset; times in seconds unless the key says otherwise."""
        first, last = self._first_read, self._last_written
        summary: dict[str, Any] = dict(self.tally.summary(CALLED))
        summary |= {"paid": self.tally.summary(PAID), "answered": self.tally.summary(ANSWERED)}
        summary |= {
            "statuses": self.tally.statuses(),
            "in_flight": self.in_flight,
            "peak_in_flight": self.tally.peak_in_flight,
            "max_in_flight": self.max_in_flight,
            "queued": self.queued,
            "service_ms": self.times.summary(),
            "lead_ms": round(self.pacer.lead * 1000, 3),
            "first_read_monotonic": first,
            "last_written_monotonic": last,
            "span_seconds": last - first if first is not None and last is not None else None,
            "cpu_seconds": time.process_time() - self._cpu,
            "connections": len(self.connections),
            "count_ids": self.tally.mode,
            "seed": self.faults.plan.seed,
            "strikes": self.faults.strikes,
        }
        return summary


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered one after the other, in order."""

    __slots__ = ("_buffer", "_busy", "_fd", "_last", "_server", "_transport", "_unwritten", "closed", "hanging")

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._busy = False
        self._last = False
        self._unwritten: Exchange | None = None
        self.hanging: Exchange | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods without the base class
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._transport.set_write_buffer_limits(high=0)  # so that resume_writing says when a partial write is complete
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._server.connections.discard(self)
        exchange = self.hanging or self._unwritten
        self.hanging = self._unwritten = None
        if exchange is not None and exchange.began >= 0:
            self._server.leave()

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        if not self._busy:
            self._take(data)

    def resume_writing(self) -> None:
        exchange, self._unwritten = self._unwritten, None
        if exchange is not None:
            self._server.written(exchange)
            self._next()

    def _take(self, data: bytes) -> None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > _MAX_HEAD:
                self.abort()
            return
        length = _content_length(data, end)
        if length < 0:
            self._last = True
            self._reply(400, {"error": "chunked request bodies are not supported, send Content-Length"})
            return
        total = end + 4 + length
        if len(data) < total:
            self._continue(data, end)
            return
        self._buffer = data[total:]
        self._busy = True
        self._dispatch(data, data[end + 4 : total])

    def _dispatch(self, data: bytes, body: bytes) -> None:
        line = data[: data.find(b"\r\n")]
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        self._last = version == b"HTTP/1.0" or b"connection: close" in data[: len(data) - len(body)].lower()
        if method == b"POST" and target not in (b"/faults", b"/reset"):
            self._server.accept(self, target.decode("latin-1"), body)
        else:
            self._reply(*self._server.control(method.decode("latin-1"), target.decode("latin-1"), body))

    def _reply(self, status: int, document: Any) -> None:
        """Answer a request that is not a model call, and so is not counted."""
        self._transport.write(_message(status, orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS)))
        self._next()

    def _continue(self, data: bytes, end: int) -> None:
        """Tell a client that waits for permission to go on (curl does, for large bodies)."""
        if len(data) == end + 4 and b"100-continue" in data[:end]:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send(self, exchange: Exchange) -> None:
        """Write the whole response, and report it as written once the kernel has all of it."""
        transport = self._transport
        if self.closed or transport.is_closing():
            if exchange.began >= 0:
                self._server.leave()
            return
        answer = exchange.answer
        sent = 0
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, answer)
            except BlockingIOError:
                sent = 0
            except OSError:
                if exchange.began >= 0:
                    self._server.leave()
                self.abort()
                return
        if sent == len(answer):
            self._server.written(exchange)
            self._next()
        else:
            self._unwritten = exchange
            transport.write(answer[sent:])

    def send_some(self, part: bytes) -> None:
        """Write a part of a response that is not followed up."""
        self._transport.write(part)

    def send_half(self, exchange: Exchange) -> None:
        """Write the head and half of the body, and close."""
        answer = exchange.answer
        self._transport.write(answer[: (answer.find(b"\r\n\r\n") + 4 + len(answer)) // 2])
        self._transport.close()

    def abort(self) -> None:
        """Close now, dropping what was not written."""
        if not self.closed:
            self._transport.abort()

    def _next(self) -> None:
        self._busy = False
        if self._last:
            self._transport.close()
        elif self._buffer:
            self._take(self._buffer)


def _content_length(data: bytes, end: int) -> int:
    """The body's length; 0 without the header, -1 for a chunked body."""
    at = data.find(b"Content-Length: ", 0, end)
    if at >= 0:
        return int(data[at + 16 : data.find(b"\r\n", at)])
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        return int(head[at + 17 :].split(b"\r\n", 1)[0])
    return -1 if b"\r\ntransfer-encoding:" in head else 0


def _struck(exchange: Exchange, call: Call, fault: Rule) -> Exchange:
    """The exchange with a fault applied to its answer and its latency."""
    exchange.fault = fault
    if fault.do == "status":
        exchange.status = fault.status
        exchange.latency = fault.delay_ms / 1000
        exchange.answer = _message(fault.status, b'{"error": "injected"}', _retry_after(fault))
        return exchange
    if fault.do == "delay":
        exchange.latency += fault.delay_ms / 1000
    if fault.do == "drop_before":
        exchange.latency = 0.0
    body = respond(call, fault)
    if fault.do == "malformed":
        body = body[: len(body) * 2 // 3]
    exchange.answer = _OK % len(body) + body
    return exchange


def _retry_after(fault: Rule) -> bytes:
    if fault.retry_after is None:
        return b""
    if fault.retry_after_form == "date":
        when = formatdate(math.ceil(time.time() + fault.retry_after), usegmt=True)
        return b"Retry-After: %s\r\n" % when.encode()
    return b"Retry-After: %d\r\n" % math.ceil(fault.retry_after)


def _message(status: int, body: bytes, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
    return head % (status, _REASONS.get(status, b"Status"), headers, len(body)) + body


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    listener.setblocking(False)
    return listener


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT, or until stdin ends when asked to."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.exit_on_stdin_eof:
        loop.add_reader(sys.stdin.fileno(), stop.set)
    server = Server(
        loop,
        plan=_plan(options),
        tally=Tally(mode=options.count_ids, max_id=options.max_id, state=options.state),
        max_in_flight=options.max_in_flight,
        queue=options.over_limit == "queue",
        protocol=options.protocol,
    )
    listener = _listen(options.port)
    await loop.create_server(lambda: Connection(server), sock=listener)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    print(json.dumps({"port": listener.getsockname()[1], "pid": os.getpid()}), flush=True)
    await stop.wait()


def _plan(options: argparse.Namespace) -> FaultPlan:
    plan = FaultPlan(latency_ms=options.latency_ms, jitter_ms=options.jitter_ms, seed=options.seed)
    return plan.changed(json.loads(options.faults))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stub_server", description="The stub model server.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--jitter-ms", type=float, default=0.0)
    parser.add_argument("--max-in-flight", type=int, default=64)
    parser.add_argument("--over-limit", choices=("reject", "queue"), default="reject")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="auto", help="auto goes by path, then by body")
    parser.add_argument("--count-ids", choices=MODES, default="dict")
    parser.add_argument("--max-id", type=int, default=8_000_000, help="size of the bitmap")
    parser.add_argument("--state", type=Path, help="file that keeps the counters across SIGKILL (bitmap or off)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", default="{}", help='JSON as for POST /faults, e.g. {"rules": [{"do": "hang"}]}')
    parser.add_argument("--exit-on-stdin-eof", action="store_true", help="stop when the process holding stdin is gone")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run the server with command line arguments."""
    uvloop.run(serve(_options(arguments)))


if __name__ == "__main__":
    main()
