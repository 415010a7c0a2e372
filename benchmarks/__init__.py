"""Benchmarks and the stub model server they share with the fault tests: one file per claim in the README's table."""
