"""Faults of build."""
