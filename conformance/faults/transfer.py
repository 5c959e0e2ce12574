"""Faults of transfer."""
