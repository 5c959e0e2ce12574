"""The model on trial and its golden answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conformance.corpus.goldens import GoldenCase
from conformance.protocol.client import Engine
from conformance.protocol.messages import Handle, ModelLoad, ModelLoaded
from conformance.trial.stand import NotTried, Stand


@contextmanager
def loaded_from(stand: Stand, path: Path, *, dtype: str | None = "F32") -> Iterator[ModelLoaded]:
    """Another checkpoint on the trial's device, unloaded afterwards."""
    model = stand.engine.call("model.load", ModelLoad(str(path), stand.model_device, dtype))
    try:
        yield model
    finally:
        if stand.engine.alive:
            stand.engine.call("model.unload", Handle(model.handle))


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


def chat_golden(stand: Stand) -> tuple[GoldenCase, str]:
    """A golden answer to a single user turn through the chat template, and the user's text.

    Raises:
        NotTried: there is none that the golden run ended by itself.
    """
    for case in stand.goldens.run.cases:
        turns = case.messages or ()
        plain = len(turns) == 1 and turns[0].role == "user" and "\n" not in turns[0].content
        if plain and case.stop_id is not None and case.text.strip():
            return case, turns[0].content
    raise NotTried("no golden answer to a single user turn that ends by itself")
