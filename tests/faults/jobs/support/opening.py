"""Makes deployments whose queues misbehave: SQS behind one relay, Kafka behind another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from airflow_provider_ai.core.transport_settings import Kind
from benchmarks.stub import StubServer
from tests.faults.jobs.support import handler
from tests.faults.jobs.support.auditor import Auditor
from tests.faults.jobs.support.kafka_relay import KafkaRelay, kafka_relay
from tests.faults.jobs.support.ledger import Ledger
from tests.faults.jobs.support.pack import Pack
from tests.faults.jobs.support.relay import Relay, relay
from tests.support.job_fleet import fleet
from tests.support.kafka import KafkaCluster
from tests.support.ministack import MiniStack
from tests.support.processes import REPOSITORY

Opened = tuple[Relay | KafkaRelay, dict[str, str], Callable[[], None]]


@contextmanager
def pack(
    folder: Path,
    server: MiniStack | KafkaCluster,
    *,
    seed: int,
    kind: Kind = "sqs",
    store_url: str | None = None,
    latency_ms: float = 100.0,
) -> Iterator[Pack]:
    """A deployment behind a relay, with nothing running yet."""
    with ExitStack() as stack:
        made = stack.enter_context(fleet(folder, server, store_url, kind=kind))
        stub = stack.enter_context(StubServer(latency_ms=latency_ms, max_in_flight=1000))
        made.opened.prepare()
        table, url = made.tables["transport"], made.tables["store"]["url"]
        queues = (table["request_queue"], table["result_queue"], table["dead_letter_queue"])
        auditor = Auditor(url, queues)
        stack.callback(auditor.close)
        effects = folder / "effects.db"
        handler.make_effects(effects)
        made.environment |= {
            "PYTHONPATH": str(REPOSITORY),
            handler.STUB_PORT: str(stub.port),
            handler.EFFECTS: str(effects),
        }
        between, address, listen = stack.enter_context(_between(server, queues, seed, auditor))
        made.tables["transport"] = {**table, **address, "call_timeout_seconds": 5}
        whole = Pack(made, between, auditor, Ledger(url), stub, effects, listen)
        stack.callback(whole.stop)
        stack.callback(between.calm)
        yield whole


@contextmanager
def _between(
    server: MiniStack | KafkaCluster, queues: tuple[str, str, str], seed: int, auditor: Auditor
) -> Iterator[Opened]:
    """A relay, where it is found, and what lets the auditor hear the results."""
    requests, results, dead = queues
    if isinstance(server, MiniStack):
        with relay(server.url, seed=seed, watcher=auditor, safe=frozenset({dead})) as made:
            yield made, {"endpoint_url": made.url}, lambda: None
        return
    lossy = {name: f"waste-{name}"[: len(name)] for name in (requests, results)}
    for waste in lossy.values():
        server.make_topic(waste)
    with kafka_relay(server.bootstrap_servers, seed=seed, lossy=lossy) as broker:
        address = {"bootstrap_servers": broker.servers}
        yield broker, address, lambda: auditor.sending(results, server.messages(results))
