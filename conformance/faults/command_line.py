"""Faults of command_line."""
