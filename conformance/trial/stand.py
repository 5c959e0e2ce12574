"""The stand: what a check speaks from. It reaches the engine, collects observations, and never judges."""

from __future__ import annotations

import hashlib
import math
import mimetypes
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from conformance.catalogue import NO_DEVICE, Row
from conformance.corpus.goldens import Goldens, GoldensForAnotherModel, load_goldens
from conformance.manifest import LoadedManifest
from conformance.observations import (
    Equal,
    Failed,
    Measured,
    Missing,
    Observation,
)
from conformance.protocol.client import Engine
from conformance.protocol.messages import DeviceOpen, DeviceOpened, Handle, TensorData
from conformance.protocol.tensors import read_tensor, to_numpy
from conformance.record import Evidence
from conformance.thresholds import Thresholds
from conformance.trial.plan import Plan

Held = TypeVar("Held")


def _all_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_all_finite, value.values()))
    return all(map(_all_finite, value)) if isinstance(value, list | tuple) else True


def _free(path: Path) -> Path:
    """The path, or the next one with a number: evidence is never written over evidence."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(each for each in chain([path], numbered) if not each.exists())


class NotTried(Exception):
    """A check cannot go on for a reason that is nobody's fault; the row (or clause) is UNTESTED with it."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class AnswerFellShort(Exception):
    """An answer in the protocol's form that lacks what was asked for; the row is FALSIFIED with it."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"the answer lacks {what}")


def part_of(answer: Mapping[str, Held] | Sequence[Held], key: Any, what: str) -> Held:
    """One entry of what the engine answered.

    Raises:
        AnswerFellShort: there is no such entry.
    """
    try:
        return answer[key]
    except LookupError:
        raise AnswerFellShort(what) from None


class Stand:
    """One row on trial. A check calls the engine through it and hands every observation to it."""

    def __init__(self, row: Row, plan: Plan, manifest: LoadedManifest, thresholds: Thresholds, engine: Engine) -> None:
        self.row = row
        self.plan = plan
        self.manifest = manifest
        self.thresholds = thresholds
        self.engine = engine
        self.observations: list[Observation] = []
        self.kept: list[Engine] = []
        self.evidence: list[Evidence] = []
        self.weights = ""
        self.seed = plan.row_seed(row.id)
        self.random = random.Random(self.seed)  # noqa: S311  reproducible choices, not secrets

    # --- where things are ---------------------------------------------------------------------------------

    @cached_property
    def directory(self) -> Path:
        """A scratch directory of this row's own inside the run directory; removed after the row."""
        path = self.plan.directory / "exchange" / self.row.id
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def gpu(self) -> bool:
        """True where an NVIDIA device is visible and the trial is the real one."""
        return self.plan.gpu

    @property
    def model_device(self) -> str:
        """Where models go in this trial: `cuda:N`, or `cpu` in a rehearsal."""
        return f"cuda:{self.plan.device_index}" if self.gpu else "cpu"

    @cached_property
    def model_directory(self) -> Path:
        """The checkpoint on trial; using it notes on which weights the row was tried."""
        self.weights = self.plan.model.name
        return Path(self.plan.model_dir)

    @cached_property
    def goldens(self) -> Goldens:
        """Golden outputs for the checkpoint on trial.

        Raises:
            NotTried: there are none for this checkpoint, or only those of other weights.
        """
        if self.plan.goldens_dir is None:
            raise NotTried(f"no goldens for {self.plan.model.name}; make them with `falsify golden`")
        goldens = load_goldens(Path(self.plan.goldens_dir))
        try:
            goldens.require(self.plan.model.sha256)
        except GoldensForAnotherModel as error:
            raise NotTried(f"no goldens for {self.plan.model.name}: {error}") from error
        return goldens

    # --- observing ----------------------------------------------------------------------------------------

    def observe(self, observation: Observation) -> None:
        """Hand one observation to the judge; numbers that JSON cannot carry are a failure by themselves."""
        if not _all_finite(msgspec.to_builtins(observation)):
            detail = f"an observation with infinities or NaN: {observation}"[:500]
            observation = Failed(name=observation.name, how="not a number", detail=detail)
        self.observations.append(observation)

    def equal(self, name: str, *, expected: Any, observed: Any, hardening: bool = False, note: str = "") -> None:
        """Observe two values that must be the same."""
        self.observe(Equal(name=name, expected=expected, observed=observed, hardening=hardening, note=note))

    def measured(self, name: str, value: float, unit: str, *, hardening: bool = False, note: str = "") -> None:
        """Observe one exact number."""
        self.observe(Measured(name=name, value=float(value), unit=unit, hardening=hardening, note=note))

    def failed(self, name: str, how: str, detail: str) -> None:
        """Observe that the engine did not do what the criterion demands."""
        self.observe(Failed(name=name, how=how, detail=detail))

    def missing(self, name: str, reason: str) -> None:
        """Observe that a clause could not be tried."""
        self.observe(Missing(name=name, reason=reason))

    def needs_gpu(self, *names: str) -> bool:
        """True on a GPU; otherwise these observations are noted as not tried for want of a device."""
        if not self.gpu:
            for name in names:
                self.missing(name, NO_DEVICE)
        return self.gpu

    def keep(self, engine: Engine) -> Engine:
        """Keep another process of the engine for later rows; it is closed with the session."""
        self.kept.append(engine)
        return engine

    def attach(self, source: Path, name: str | None = None) -> Evidence:
        """Keep a copy of a file as evidence of this row, with its hash."""
        name = name or source.name
        target = _free(self.plan.directory / "evidence" / self.row.id / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        content = target.read_bytes()
        evidence = Evidence(
            path=target.relative_to(self.plan.directory).as_posix(),
            sha256=hashlib.sha256(content).hexdigest(),
            nbytes=len(content),
            media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        )
        self.evidence.append(evidence)
        return evidence

    def attach_text(self, name: str, text: str) -> Evidence:
        """Keep a text as evidence of this row."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8", errors="replace")
        return self.attach(path)

    # --- engine -------------------------------------------------------------------------------------------

    def opened_device(self) -> AbstractContextManager[DeviceOpened]:
        """The trial's device, opened by the engine and closed afterwards: a GPU, or the host in a rehearsal."""
        return self.opened_device_of(self.engine)

    @contextmanager
    def opened_device_of(self, engine: Engine) -> Iterator[DeviceOpened]:
        """The trial's device opened by another process of the engine."""
        backend = "cuda" if self.gpu else "cpu"
        opened = engine.call("device.open", DeviceOpen(self.plan.device_index if self.gpu else 0, backend))
        try:
            yield opened
        finally:
            if engine.alive:
                engine.call("device.close", Handle(opened.handle))

    def read_bytes(self, data: TensorData) -> bytearray:
        """The bytes of a tensor that the engine wrote, checked against its stated length and hash."""
        return read_tensor(self.plan.directory / "exchange", data)

    def read_tensor(self, data: TensorData) -> np.ndarray[Any, np.dtype[Any]]:
        """The same as an array of the stated shape; BF16 comes as its uint16 bits."""
        return to_numpy(data, read_tensor(self.plan.directory / "exchange", data))
