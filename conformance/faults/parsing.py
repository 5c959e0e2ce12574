"""Faults of parsing."""
