"""What librdkafka says, and how often it gets into the log."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_ai.adapters.queues import kafka_log
from airflow_provider_ai.adapters.queues.kafka_log import Seldom, librdkafka_log


def record(text: str, *words: object) -> logging.LogRecord:
    return logging.LogRecord("kafka", logging.ERROR, "x.py", 1, text, words, None)


def test_the_same_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever port and milliseconds it names; anything else is said at once."""
    now = [100.0]
    monkeypatch.setattr(kafka_log.time, "monotonic", lambda: now[0])
    seldom = Seldom()
    assert seldom.filter(record("%s: refused after %dms", "b1:9092", 3))
    assert not seldom.filter(record("%s: refused after %dms", "b2:9093", 40))
    assert seldom.filter(record("%s: TLS handshake failed", "b1:9092"))
    now[0] += kafka_log.SAID_AGAIN_SECONDS
    assert seldom.filter(record("%s: refused after %dms", "b1:9092", 5))


def test_all_clients_share_the_logger_and_its_filter() -> None:
    """So a process with three clients says it once."""
    assert librdkafka_log() is librdkafka_log()
    assert len([each for each in librdkafka_log().filters if isinstance(each, Seldom)]) == 1
