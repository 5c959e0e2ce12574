"""Weights changed on purpose: what is loaded must be used, and what is used must change the logits."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from checks.support.checkpoints import copy_of, tensors_of
from checks.support.quality import loaded_from
from checks.support.tensors import write_safetensors
from conformance.protocol.messages import Logits
from conformance.trial.stand import AnswerFellShort, NotTried, Stand

WEIGHTS = "model.safetensors"
_PROBE_TOKENS = 24
Entry = tuple[str, list[int], bytes]


class Perturbable:
    """A copy of the checkpoint whose tensors are changed in place, one at a time, and put back."""

    def __init__(self, stand: Stand) -> None:
        if not (stand.model_directory / WEIGHTS).is_file():
            raise NotTried("the checkpoint is sharded; perturbed copies are made of single files")
        self.stand = stand
        self.directory = copy_of(stand, "perturbed")
        self.file = self.directory / WEIGHTS
        with self.file.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        self.start = 8 + size
        self.spans: dict[str, tuple[int, int]] = {
            name: tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"
        }
        self.dtypes: dict[str, str] = {name: entry["dtype"] for name, entry in header.items() if name in self.spans}
        self.probe = self._probe_ids()
        self.plain = self.logits()

    def _probe_ids(self) -> list[int]:
        longest = max(self.stand.goldens.run.cases, key=lambda case: len(set(case.prompt_ids)))
        return list(longest.prompt_ids[:_PROBE_TOKENS])

    def logits(self) -> np.ndarray:
        """Logits of the probe on the copy as it is now, F32 [tokens, vocabulary]."""
        with loaded_from(self.stand, self.directory) as model:
            answer = self.stand.engine.call("model.logits", Logits(model.handle, self.probe))
            logits = self.stand.read_tensor(answer)
        if logits.ndim != 2 or not logits.size or len(logits) != len(self.probe):
            raise AnswerFellShort(f"a row of logits for each of {len(self.probe)} tokens")
        return logits

    def change_of(self, names: Iterable[str], change: Callable[[str, bytes], bytes]) -> float:
        """The largest difference in any logit when these tensors are changed; they are put back."""
        kept = {name: self._read(name) for name in names}
        try:
            for name, payload in kept.items():
                self._write(name, change(self.dtypes[name], payload))
            return float(np.abs(self.logits() - self.plain).max())
        finally:
            for name, payload in kept.items():
                self._write(name, payload)

    def _read(self, name: str) -> bytes:
        begin, end = self.spans[name]
        with self.file.open("rb") as file:
            file.seek(self.start + begin)
            payload: bytes = file.read(end - begin)
            return payload

    def _write(self, name: str, payload: bytes) -> None:
        with self.file.open("r+b") as file:
            file.seek(self.start + self.spans[name][0])
            file.write(payload)


def zeroed(dtype: str, payload: bytes) -> bytes:
    """All zeros."""
    del dtype
    return b"\0" * len(payload)


def negated(dtype: str, payload: bytes) -> bytes:
    """Every value with its sign bit flipped."""
    width = 4 if dtype == "F32" else 2
    values = np.frombuffer(payload, dtype=f"<u{width}")
    flipped: bytes = (values ^ np.array(1 << (8 * width - 1), dtype=values.dtype)).tobytes()
    return flipped


def without(stand: Stand, name: str) -> Path:
    """The checkpoint with one tensor left out of the file."""
    target = copy_of(stand, f"without-{abs(hash(name))}")
    tensors: dict[str, Entry] = tensors_of(target / WEIGHTS)
    del tensors[name]
    write_safetensors(target / WEIGHTS, tensors)
    return target


def changed_config(stand: Stand, name: str, change: Callable[[dict[str, object]], None]) -> Path:
    """The checkpoint with a changed config.json."""
    target = copy_of(stand, name)
    config = json.loads((target / "config.json").read_text())
    change(config)
    (target / "config.json").write_text(json.dumps(config))
    return target
