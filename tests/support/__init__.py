"""Launchers of the real services behind tests, demo and benchmarks. Nothing here imports pytest or airflow."""
