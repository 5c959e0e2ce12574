"""The small checkpoint of the engine's own tests, for tests of its adapter."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ENGINE_TESTS = Path(__file__).parents[2] / "reference_engine" / "conftest.py"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("engine_checkpoints", ENGINE_TESTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_checkpoint("tied", tmp_path_factory.mktemp("adapter"))
