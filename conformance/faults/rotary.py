"""Faults of rotary."""
