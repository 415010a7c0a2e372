"""Faults of the asynchronous pattern: real processes, and what must hold afterwards."""
