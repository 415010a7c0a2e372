"""The integration patterns, written against the ports of :mod:`airflow_provider_ai.core.ports`."""
