"""Golden outputs: what an independent implementation computed for a checkpoint, and how it is stored.

Per compute dtype a pair of files lies beside each other: `goldens.f32.json` (`GoldenRun`) and
`goldens.f32.npz` (logits, read without pickle). Loading needs neither torch nor transformers.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from conformance.corpus.golden_cases import Expectation
from conformance.protocol.messages import ChatMessage

FORMAT = 1
TOP = 8
MAX_FILE_BYTES = 256 * 1024 * 1024

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class GoldensMissing(Exception):
    """No golden outputs for this dtype in the directory."""

    def __init__(self, directory: Path, dtype: str) -> None:
        super().__init__(f"{directory}: no golden outputs in {dtype}; `falsify golden` makes them")
        self.directory = directory
        self.dtype = dtype


class GoldensCorrupt(Exception):
    """Stored golden outputs that contradict themselves."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class GoldensForAnotherModel(Exception):
    """Golden outputs that were made from other files than those on trial."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"golden outputs belong to the checkpoint {expected}, not to {found}")
        self.expected = expected
        self.found = found


class GoldenCase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One greedy generation.

    `ids` leaves the stop id out. `margins` (top-1 minus top-2 logit) and the stored logits have one entry per
    decision: one for each of `ids`, and one more for `stop_id` where generation ended by it. `answered` says
    whether the golden run itself met `expect`; without a demand it is true.
    """

    name: str
    rows: tuple[str, ...]
    max_tokens: int
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    margins: tuple[float, ...]
    stop_id: int | None = None
    prompt: str | None = None
    messages: tuple[ChatMessage, ...] | None = None
    raw: bool = False
    expect: Expectation | None = None
    answered: bool = True

    @property
    def decisions(self) -> tuple[int, ...]:
        """The argmax of every step: `ids`, and the stop id where there is one."""
        return self.ids if self.stop_id is None else (*self.ids, self.stop_id)


class GoldenForced(msgspec.Struct, frozen=True, kw_only=True):
    """Teacher-forced logits of one sequence, kept at `positions` (0-based)."""

    name: str
    rows: tuple[str, ...]
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    argmax: tuple[int, ...]
    margins: tuple[float, ...]


class GoldenRun(msgspec.Struct, frozen=True, kw_only=True):
    """The stored form: on which weights, by which software, in which compute dtype, and every case.

    `noise` is the largest distance of an F32 logit from the one computed in F64; None where it was not measured.
    """

    model_sha256: str
    source: str
    dtype: str
    vocab_size: int
    arrays_sha256: str
    cases: tuple[GoldenCase, ...]
    forced: tuple[GoldenForced, ...] = ()
    noise: float | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Goldens:
    """Golden outputs in memory: the run's record and its logits, keyed `<case>/<array>`."""

    run: GoldenRun
    arrays: dict[str, npt.NDArray[np.generic]]

    def case(self, name: str) -> GoldenCase:
        """The generation of this name; KeyError if there is none."""
        return {case.name: case for case in self.run.cases}[name]

    def forced(self, name: str) -> GoldenForced:
        """The teacher-forced sequence of this name; KeyError if there is none."""
        return {case.name: case for case in self.run.forced}[name]

    @property
    def by_name(self) -> dict[str, GoldenCase | GoldenForced]:
        """Generations and teacher-forced sequences under their names."""
        generated: dict[str, GoldenCase | GoldenForced] = {case.name: case for case in self.run.cases}
        return generated | {sequence.name: sequence for sequence in self.run.forced}

    def for_row(self, row: str, *, answered_only: bool = True) -> tuple[GoldenCase, ...]:
        """The generations that serve a row, by default only those that the golden run itself answered."""
        return tuple(case for case in self.run.cases if row in case.rows and (case.answered or not answered_only))

    def forced_for_row(self, row: str) -> tuple[GoldenForced, ...]:
        """The teacher-forced sequences that serve a row."""
        return tuple(case for case in self.run.forced if row in case.rows)

    def logits(self, case: GoldenCase | GoldenForced) -> tuple[Ints, Floats]:
        """The stored vocabulary columns [k] and their logits [steps, k]; k is 0 where only the top is kept."""
        values = self.arrays[f"{case.name}/logits"].astype(np.float32)
        if values.shape[1] == self.run.vocab_size:
            return np.arange(self.run.vocab_size, dtype=np.int64), values
        return self.arrays["columns"].astype(np.int64), values

    def top(self, case: GoldenCase | GoldenForced) -> tuple[Ints, Floats]:
        """The ids [steps, 8] of the largest logits of each step, best first, and those logits [steps, 8]."""
        ids = self.arrays[f"{case.name}/top_ids"].astype(np.int64)
        return ids, self.arrays[f"{case.name}/top_logits"].astype(np.float32)

    def require(self, model_sha256: str) -> None:
        """Refuse goldens of another checkpoint.

        Raises:
            GoldensForAnotherModel: The hash is another one.
        """
        if self.run.model_sha256 != model_sha256:
            raise GoldensForAnotherModel(self.run.model_sha256, model_sha256)


def golden_paths(directory: Path, dtype: str) -> tuple[Path, Path]:
    """Where the record and the logits of a compute dtype (F32, F16, BF16) are stored."""
    stem = f"goldens.{dtype.lower()}"
    return directory / f"{stem}.json", directory / f"{stem}.npz"


def save_goldens(directory: Path, run: GoldenRun, arrays: dict[str, npt.NDArray[np.generic]]) -> Goldens:
    """Write a run and its logits; the same content always gives the same bytes.

    `run.arrays_sha256` is filled in here, so that record and logits cannot be mixed up.
    """
    record_path, arrays_path = golden_paths(directory, run.dtype)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    run = msgspec.structs.replace(run, arrays_sha256=hashlib.sha256(content).hexdigest())
    directory.mkdir(parents=True, exist_ok=True)
    arrays_path.write_bytes(content)
    record_path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    return load_goldens(directory, run.dtype)


def load_goldens(directory: Path, dtype: str = "F32") -> Goldens:
    """Read golden outputs and check that they are whole and agree with themselves.

    Raises:
        GoldensMissing: There are none for this dtype.
        GoldensCorrupt: A file is unreadable, too large, of another format, or contradicts the other.
    """
    record_path, arrays_path = golden_paths(directory, dtype)
    if not record_path.is_file() or not arrays_path.is_file():
        raise GoldensMissing(directory, dtype)
    try:
        run = msgspec.json.decode(_bounded(record_path), type=GoldenRun)
    except msgspec.DecodeError as error:
        raise GoldensCorrupt(record_path, str(error)) from error
    if run.format != FORMAT or run.dtype != dtype:
        raise GoldensCorrupt(record_path, f"format {run.format} in {run.dtype}, expected {FORMAT} in {dtype}")
    goldens = Goldens(run, _read_arrays(arrays_path, run.arrays_sha256))
    for case in goldens.by_name.values():
        _check_case(record_path, goldens, case)
    return goldens


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise GoldensCorrupt(path, f"larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def _read_arrays(path: Path, sha256: str) -> dict[str, npt.NDArray[np.generic]]:
    content = _bounded(path)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise GoldensCorrupt(path, "not the logits that the record beside it was written with")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise GoldensCorrupt(path, str(error)) from error


def _check_case(path: Path, goldens: Goldens, case: GoldenCase | GoldenForced) -> None:
    expected = case.decisions if isinstance(case, GoldenCase) else case.argmax
    try:
        ids, top_logits = goldens.top(case)
        columns, logits = goldens.logits(case)
    except (KeyError, IndexError) as error:
        raise GoldensCorrupt(path, f"{case.name}: no stored logits") from error
    steps = len(expected)
    shapes = (ids.shape, top_logits.shape, logits.shape, len(case.margins))
    if shapes != ((steps, TOP), (steps, TOP), (steps, len(columns)), steps):
        raise GoldensCorrupt(path, f"{case.name}: {steps} decisions with arrays of shape {shapes}")
    if ids[:, 0].tolist() != list(expected):
        raise GoldensCorrupt(path, f"{case.name}: the largest stored logit is not that of the chosen id")
