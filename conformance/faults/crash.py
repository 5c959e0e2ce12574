"""Faults of crash."""
