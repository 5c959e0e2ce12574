"""The model on trial and its golden answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from conformance.corpus.goldens import GoldenCase
from conformance.protocol.client import Engine
from conformance.protocol.messages import Handle, ModelLoad, ModelLoaded
from conformance.trial.stand import NotTried, Stand


@contextmanager
def loaded_model(stand: Stand, engine: Engine | None = None, *, dtype: str | None = "F32") -> Iterator[ModelLoaded]:
    """The checkpoint on trial in the trial's device, computed in F32 unless told otherwise, unloaded afterwards."""
    engine = engine or stand.engine
    model = engine.call("model.load", ModelLoad(str(stand.model_directory), stand.model_device, dtype))
    try:
        yield model
    finally:
        if engine.alive:
            engine.call("model.unload", Handle(model.handle))


def first_golden(stand: Stand) -> GoldenCase:
    """A golden generation of at least two ids.

    Raises:
        NotTried: there is none.
    """
    for case in stand.goldens.run.cases:
        if len(case.ids) > 1:
            return case
    raise NotTried("no golden generation of two ids or more")
