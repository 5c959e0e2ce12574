"""Engines by models by devices: many trials from one command, each with a record of its own."""
