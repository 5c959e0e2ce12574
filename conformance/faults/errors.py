"""Faults of errors."""
