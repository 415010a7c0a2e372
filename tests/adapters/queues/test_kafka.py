"""What only Kafka has: partitions that come and go, offsets, and a group that must not think a busy member dead."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ai.adapters.queues import open_transport
from airflow_provider_ai.adapters.queues.kafka import KafkaQueue
from airflow_provider_ai.adapters.queues.kafka_consumption import MOST_AHEAD
from airflow_provider_ai.adapters.queues.kafka_service import KafkaService, explained
from airflow_provider_ai.core.job_ports import Delivery
from airflow_provider_ai.core.transport_settings import TransportSettings
from airflow_provider_ai.exceptions import QueueError, QueueUnavailableError, SpecError
from tests.adapters.queues.conftest import drain, kafka_settings, message
from tests.support import kafka, processes
from tests.support.kafka import KafkaCluster

pytestmark = pytest.mark.real
Open = Callable[[], KafkaQueue]


@pytest.fixture
def settings(kafka_cluster: KafkaCluster) -> TransportSettings:
    return kafka_settings(kafka_cluster)


@pytest.fixture
def join(settings: TransportSettings) -> Iterator[Open]:
    """Another member of the group, as a process of its own would be one."""
    made: list[KafkaQueue] = []

    def open_queue() -> KafkaQueue:
        made.append(KafkaQueue(KafkaService(settings), settings.request_queue))
        return made[-1]

    yield open_queue
    for queue in made:
        queue.close()


@pytest.fixture
def queue(join: Open) -> KafkaQueue:
    return join()


def bodies(deliveries: list[Delivery]) -> list[int]:
    return sorted(json.loads(each.body)["number"] for each in deliveries)


def eventually(condition: Callable[[], bool], seconds: float = 45.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- offsets


def test_what_is_done_behind_a_gap_comes_again_with_the_gap(join: Open) -> None:
    """The offset stays before the first message that is not done, so none is lost."""
    first = join()
    first.send([message(number) for number in range(40)])
    held = drain(first, expect=40)
    parts: dict[int, list[Delivery]] = {}
    for delivery in held:
        parts.setdefault(delivery.handle.partition, []).append(delivery)  # type: ignore[attr-defined]
    for deliveries in parts.values():
        first.delete(deliveries[:2] + deliveries[3:])
    first.close()
    again = drain(join(), expect=40 - 2 * len(parts), seconds=20)
    assert bodies(again) == bodies([each for deliveries in parts.values() for each in deliveries[2:]])


def test_a_message_given_back_goes_to_whoever_comes_next(join: Open) -> None:
    """It is sent again before the first copy is marked as done; its key and attributes stay."""
    first = join()
    first.send([message(0, attributes={"a": "ü"})])
    first.extend(drain(first, expect=1, visibility=600), visibility_seconds=0)
    first.close()
    second = join()
    (again,) = drain(second, expect=1)
    assert (again.body, again.attributes) == (b'{"number":0}', {"a": "ü"})
    second.delete([again])
    assert second.receive(most=5, wait_seconds=1, visibility_seconds=5) == []


def test_whoever_only_sends_joins_no_group(queue: KafkaQueue) -> None:
    """A submitter must not be given partitions, for nobody would work on them."""
    queue.send([message(0)])
    assert queue._consumption is None


# --- rebalances


def test_a_second_member_takes_over_half_and_late_deletes_are_harmless(join: Open) -> None:
    """What the first one held of those partitions comes to the second; what it says about it later changes nothing."""
    first = join()
    first.send([message(number) for number in range(60)])
    held = drain(first, expect=60, visibility=600)
    assert len(held) == 60
    second = join()
    again = drain(second, expect=60, seconds=25, visibility=600)
    moved = {each.handle.partition for each in again}  # type: ignore[attr-defined]
    assert 0 < len(moved) < 4
    first.delete(held)
    first.close()
    second.close()
    left = drain(join(), expect=60, seconds=15)
    assert bodies(left) == bodies([each for each in held if each.handle.partition in moved])  # type: ignore[attr-defined]


def _member(settings: TransportSettings, folder: Path, name: str, *, deletes: bool) -> tuple[processes.Service, Path]:
    given = folder / "settings.json"
    given.write_text(json.dumps(asdict(settings)))
    output = folder / f"{name}.out"
    command = [sys.executable, "-m", "tests.adapters.queues.kafka_consumer", given, output, "yes" if deletes else "no"]
    service = processes.start(name, command, log_path=folder / f"{name}.log", cwd=processes.REPOSITORY)
    service.wait_ready(output.exists, deadline_seconds=60)
    return service, output


def _lines(output: Path) -> list[str]:
    return [line for line in output.read_text().splitlines() if line.startswith("{")]


def test_processes_that_join_and_leave_lose_nothing(
    queue: KafkaQueue, settings: TransportSettings, tmp_path: Path
) -> None:
    """Two members in processes of their own, one of which ends in the middle, while messages keep coming."""
    one, seen_by_one = _member(settings, tmp_path, "one", deletes=True)
    two = None
    try:
        queue.send([message(number) for number in range(100)])
        eventually(lambda: len(_lines(seen_by_one)) >= 50)
        two, seen_by_two = _member(settings, tmp_path, "two", deletes=True)
        sent = 100
        while not _lines(seen_by_two):
            assert sent < 12_000
            queue.send([message(number) for number in range(sent, sent + 100)])
            sent += 100
            time.sleep(0.5)
        one.stop(grace_seconds=30)
        queue.send([message(number) for number in range(sent, sent + 100)])
        wanted = {f'{{"number":{number}}}' for number in range(sent + 100)}
        eventually(lambda: wanted == {*_lines(seen_by_one), *_lines(seen_by_two)})
        eventually(lambda: queue.depth() == 0)
    finally:
        processes.stop_all([service for service in (one, two) if service is not None])


def test_what_a_killed_member_held_comes_to_another(join: Open, settings: TransportSettings, tmp_path: Path) -> None:
    """Once the group has noticed."""
    sender = join()
    sender.send([message(number) for number in range(10)])
    victim, seen = _member(settings, tmp_path, "victim", deletes=False)
    eventually(lambda: len(_lines(seen)) == 10)
    victim.kill()
    assert bodies(drain(sender, expect=10, seconds=60)) == list(range(10))


def test_a_busy_member_stays_in_its_group(settings: TransportSettings) -> None:
    """It does not ask for more for longer than ``max.poll.interval.ms``, and its delete still counts."""

    class Hasty(KafkaService):
        def consumer(self, topic: str, **changes: Any) -> Any:
            return super().consumer(topic, **{"max.poll.interval.ms": 4000}, **changes)

    busy = KafkaQueue(Hasty(settings), settings.request_queue)
    busy.send([message(number) for number in range(4)])
    held = drain(busy, expect=4, visibility=600)
    time.sleep(7)
    busy.delete(held)
    eventually(lambda: busy.depth() == 0, 10)
    busy.close()


def test_a_backlog_waits_at_the_brokers(queue: KafkaQueue) -> None:
    """Only so much is fetched ahead; all of it comes in the end."""
    queue.send([message(number) for number in range(3000)])
    found = drain(queue, expect=1)
    time.sleep(3)
    consumption = queue._consumption
    assert consumption is not None
    assert MOST_AHEAD / 2 < len(consumption._ready) <= MOST_AHEAD + 101
    found += drain(queue, expect=2999, seconds=60, visibility=600)
    assert bodies(found) == list(range(3000))


def test_delayed_messages_do_not_pile_up_here_either(queue: KafkaQueue) -> None:
    """And they come when they are due, behind which everything else goes on."""
    queue.send([message(number, delay_seconds=8) for number in range(600)])
    queue.receive(most=1, wait_seconds=0, visibility_seconds=60)
    time.sleep(5)
    consumption = queue._consumption
    assert consumption is not None
    assert len(consumption._later) <= MOST_AHEAD + 101
    assert bodies(drain(queue, expect=600, seconds=60, visibility=600)) == list(range(600))


# --- a cluster that is away, or refuses


def test_a_cluster_that_is_down_is_unavailable_within_the_timeout(settings: TransportSettings) -> None:
    """For everything one may ask of it."""
    nowhere = replace(settings, bootstrap_servers=f"127.0.0.1:{processes.free_port()}", call_timeout_seconds=2)
    queue = open_transport(nowhere).requests
    for work in (
        lambda: queue.send([message(0)]),
        lambda: queue.receive(most=1, wait_seconds=1, visibility_seconds=1),
        queue.depth,
        lambda: queue.peek(most=1),
    ):
        began = time.monotonic()
        with pytest.raises(QueueUnavailableError, match="Kafka does not answer"):
            work()
        assert time.monotonic() - began < 8
    queue.close()


def test_a_cluster_that_is_down_does_not_fill_the_log(
    settings: TransportSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """What librdkafka says about each of its attempts, many a second, is said once a minute in a process."""
    nowhere = replace(settings, bootstrap_servers=f"127.0.0.1:{processes.free_port()}", call_timeout_seconds=3)
    queue = open_transport(nowhere).requests
    with pytest.raises(QueueUnavailableError):
        queue.send([message(0)])
    queue.close()
    said = [record.getMessage() for record in caplog.records if "Connection refused" in record.getMessage()]
    assert len(said) <= 1, said


def test_a_cluster_that_hangs_for_a_while_is_found_again() -> None:
    """Sends fail within their timeout, an empty receive says why, and nothing is lost."""
    with kafka.kafka() as cluster:
        settings = kafka_settings(cluster, call_timeout_seconds=3)
        queue = open_transport(settings).requests
        queue.send([message(0)])
        assert bodies(drain(queue, expect=1, visibility=600)) == [0]
        _stop(cluster.service.pid)
        began = time.monotonic()
        with pytest.raises(QueueUnavailableError, match="Kafka does not answer"):
            queue.send([message(1)])
        assert time.monotonic() - began < 10
        os.kill(cluster.service.pid, signal.SIGCONT)
        eventually(lambda: _sends(queue, 2), 30)
        assert 2 in bodies(drain(queue, expect=2, seconds=30))
        queue.close()


def _stop(pid: int) -> None:
    """Stop a process, and wait until none of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    tasks = list(Path(f"/proc/{pid}/task").glob("*/stat"))
    eventually(lambda: all(task.read_text().rpartition(") ")[2].startswith("T") for task in tasks))


def _sends(queue: Any, number: int) -> bool:
    try:
        return list(queue.send([message(number)])) == [f"job-{number}"]
    except QueueUnavailableError:
        return False


def test_a_topic_that_is_not_there_is_named_with_what_makes_it(settings: TransportSettings) -> None:
    """Asking does not make it."""
    queue = KafkaQueue(KafkaService(settings), "nowhere")
    for _ in range(2):
        for work in (
            lambda: queue.send([message(0)]),
            lambda: queue.receive(most=1, wait_seconds=0, visibility_seconds=1),
            queue.depth,
        ):
            with pytest.raises(QueueError, match="nowhere: there is no such topic; `airflow-ai queues create`") as gone:
                work()
            assert not isinstance(gone.value, QueueUnavailableError)
    queue.close()


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("TOPIC_AUTHORIZATION_FAILED", QueueError, "refuses the credentials or their rights"),
        ("_AUTHENTICATION", QueueError, "refuses the credentials"),
        ("UNKNOWN_TOPIC_OR_PART", QueueError, "no such topic"),
        ("_ALL_BROKERS_DOWN", QueueUnavailableError, "a retry can help"),
        ("THROTTLING_QUOTA_EXCEEDED", QueueUnavailableError, "a retry can help"),
    ],
)  # fmt: skip
def test_what_librdkafka_reports_becomes_one_of_two_errors(name: str, error: type[QueueError], text: str) -> None:
    """Without its text."""
    from confluent_kafka import KafkaError

    said = explained("q", KafkaError(getattr(KafkaError, name), "SECRET"))
    assert type(said) is error
    assert text in str(said)
    assert "SECRET" not in str(said)


def test_tls_files_that_are_not_there_are_a_matter_of_the_settings(settings: TransportSettings) -> None:
    """A retry cannot help."""
    secure = replace(settings, security_protocol="ssl", ca_file="/nowhere/ca.pem")
    with pytest.raises(SpecError, match="check the TLS files"):
        open_transport(secure).requests.send([message(0)])
