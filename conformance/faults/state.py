"""Faults of state."""
