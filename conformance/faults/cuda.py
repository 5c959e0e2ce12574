"""Faults of cuda."""
