"""Adapters and manifests: how each engine is started, and what its roles are called."""
