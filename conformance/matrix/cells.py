"""The matrix as a file (TOML) and the cells it has."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import msgspec

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_CELLS = 100_000
HERE = "here"
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class BrokenMatrix(Exception):
    """A matrix file that cannot be read or has no cells; the message names the file and the cause."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")


class MatrixTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is tried. Every engine meets every model on every device.

    Engines and models are what `falsify run` takes; paths are relative to the matrix file. A device is `here` (any
    GPU of the host, or the CPU's rehearsal where there is none) or a part of a GPU's name, such as `H100`. `rehearse`
    leaves the GPUs alone.
    """

    engines: Names
    models: Names = ("fixture",)
    devices: Names = (HERE,)
    rows: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    seed: Annotated[int, msgspec.Meta(ge=0, le=999_999_999_999_999)] = 0
    profile: Literal["default", "long"] = "default"
    rehearse: bool = False


class Cell(msgspec.Struct, frozen=True):
    """One engine with one model on one kind of device; `name` is its directory's."""

    name: str
    engine: str
    model: str
    device: str


class Matrix(msgspec.Struct, frozen=True):
    """A matrix that was read: its table, its cells in order, and the file's hash."""

    table: MatrixTable
    cells: tuple[Cell, ...]
    sha256: str

    def numbered(self, number: int) -> Cell:
        """Cell `number`, counted from 1; IndexError if there is none."""
        if not 1 <= number <= len(self.cells):
            raise IndexError(number)
        return self.cells[number - 1]


def load_matrix(path: Path) -> Matrix:
    """Read a matrix.

    Raises:
        BrokenMatrix: not TOML, an unknown field, a wrong type, one cell twice, or too many.
    """
    try:
        raw = path.read_bytes()
        table = msgspec.convert(tomllib.loads(raw.decode()), MatrixTable)
    except OSError as error:
        raise BrokenMatrix(path, error.strerror or str(error)) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BrokenMatrix(path, str(error)) from error
    if len(table.engines) * len(table.models) * len(table.devices) > _MOST_CELLS:
        raise BrokenMatrix(path, f"more than {_MOST_CELLS:,} cells")
    for kind in ("engines", "models", "devices"):
        twice = _twice(getattr(table, kind))
        if twice is not None:
            raise BrokenMatrix(path, f"{twice!r} stands twice in {kind}")
    return Matrix(table, tuple(_cells(path, table)), hashlib.sha256(raw).hexdigest())


def _twice(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _cells(path: Path, table: MatrixTable) -> list[Cell]:
    engines = {name: _located(path, name, is_path=name.endswith(".toml") or "/" in name) for name in table.engines}
    models = {name: _located(path, name, is_path="/" in name) for name in table.models}
    return [
        Cell(_name(number, engine, model, device), engines[engine], models[model], device)
        for number, (engine, model, device) in enumerate(product(table.engines, table.models, table.devices), start=1)
    ]


def _located(matrix: Path, name: str, *, is_path: bool) -> str:
    return str(matrix.resolve().parent / Path(name).expanduser()) if is_path else name


def _name(number: int, engine: str, model: str, device: str) -> str:
    """Unique by its number, and readable by the rest."""
    words = (Path(engine).stem, Path(model).name, device)
    return f"{number:05}-" + "-".join(_UNSAFE.sub("_", word)[:40] for word in words)
