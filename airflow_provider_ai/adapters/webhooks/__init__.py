"""Webhooks: results delivered over HTTP, signed as Standard Webhooks asks."""

from __future__ import annotations

from airflow_provider_ai.adapters.webhooks.sender import HttpWebhookSender

__all__ = ["HttpWebhookSender"]
