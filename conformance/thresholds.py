"""Every number a verdict depends on, read from `thresholds.toml`; its hash is in every record."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from conformance.reported import Reported

THRESHOLDS_PATH = Path(__file__).with_name("thresholds.toml")
Relation = Literal["<", "<=", ">", ">=", "=="]


class MissingThreshold(Exception):
    """An observation that needs a limit has none; nothing can be judged by a number that is not written down."""

    def __init__(self, row: str, name: str, field: str) -> None:
        self.row, self.name, self.field = row, name, field
        super().__init__(f"thresholds have no `{field}` for {row} {name}")


class BrokenThresholds(Reported, ValueError):
    """A thresholds file that cannot be read as one; the message says where."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path = path
        super().__init__(f"{path}: {cause}")


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The numbers behind one observation of one row; which of them are needed depends on its kind.

    `alpha` is the row's error rate for FALSIFIED and for CORROBORATED alike; `looks` the run counts at which a
    sequential rule may stop; `max_sd` the largest spread (of logarithms) at which it may decide at all. A single
    number beyond its limit is INCONCLUSIVE up to `undecided_to`, and throughout where `otherwise` says so: then it
    is a precondition of the measurement, not the claim. `times_noise` bounds a difference of logits by the golden
    run's own rounding noise, and `max_abs` where that is larger or unknown. `detects` is the smallest planted dose
    that the committed calibration of an H100 shows to be FALSIFIED 95 times in 100: for a rate the share by which an
    engine on its limit gets slower, for growth the bytes an operation that only the witness sees.
    """

    reason: str
    relation: Relation = "<="
    limit: float | None = None
    unit: str = ""
    alpha: float | None = None
    looks: tuple[int, ...] = ()
    max_sd: float | None = None
    max_abs: float | None = None
    times_noise: float | None = None
    min_cosine: float | None = None
    tie_margin: float | None = None
    max_ties: int | None = None
    min_examples: int | None = None
    min_classes: int | None = None
    max_growth: int | None = None
    detects: float | None = None
    undecided_to: float | None = None
    otherwise: Literal["falsified", "inconclusive"] = "falsified"


class Thresholds(msgspec.Struct, frozen=True):
    """All limits by row and observation name, and the hash of the file they were read from."""

    rows: dict[str, dict[str, Limit]]
    sha256: str

    def limit(self, row: str, name: str) -> Limit | None:
        """The limit for an observation; `roundtrip/F16` falls back to `roundtrip`."""
        table = self.rows.get(row, {})
        return table.get(name) or table.get(name.split("/", 1)[0])


@cache
def load_thresholds(path: Path = THRESHOLDS_PATH) -> Thresholds:
    """Read and validate a thresholds file.

    Raises:
        BrokenThresholds: it is not TOML of this shape.
        OSError: it cannot be read.
    """
    raw = path.read_bytes()
    try:
        rows = msgspec.convert(tomllib.loads(raw.decode()), dict[str, dict[str, Limit]])
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BrokenThresholds(path, str(error)) from error
    return Thresholds(rows, hashlib.sha256(raw).hexdigest())
