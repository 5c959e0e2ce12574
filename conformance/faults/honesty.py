"""Faults of honesty."""
