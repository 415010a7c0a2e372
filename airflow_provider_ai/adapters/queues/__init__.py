"""Queues: SQS and Kafka behind one port."""

from __future__ import annotations

from airflow_provider_ai.adapters.queues.opening import open_transport

__all__ = ["open_transport"]
