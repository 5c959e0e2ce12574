"""Faults of loading."""
