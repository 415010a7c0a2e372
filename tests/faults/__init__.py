"""Faults injected into a real run of the command line, and what must hold afterwards."""
