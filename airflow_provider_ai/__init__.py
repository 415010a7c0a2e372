"""The three integration patterns for AI services in Apache Airflow: synchronous, asynchronous and batch."""

from __future__ import annotations

__version__ = "0.1.0"
