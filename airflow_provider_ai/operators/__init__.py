"""Thin Airflow shells over the runtime: resolve connections, make one call, map its errors."""
