"""Faults of dtypes."""
