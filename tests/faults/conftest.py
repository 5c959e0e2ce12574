"""Processes with faults planted, forked from one that has imported the engine."""

from __future__ import annotations

import functools

import pytest

from conformance.faults import nursery


@pytest.fixture(scope="module")
def nursed(tmp_path_factory):
    """Makes of a fault's manifest one with processes from the nursery."""
    with nursery.nursery(tmp_path_factory.mktemp("nursery")) as path:
        yield functools.partial(nursery.nursed, path=path)
