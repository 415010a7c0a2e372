"""Sensors that wait for what a pattern needs before it spends anything."""
