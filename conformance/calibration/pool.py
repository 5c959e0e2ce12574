"""The pool: values of fresh processes as JSON lines, appended as they come, so that several sessions add up.

Fail-closed like a record: an unknown field, a number that is none, a session on another machine or with other doses
is a `BrokenPool`. A last line without its end is a session that was cut off there, and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import msgspec

from conformance.reported import Reported

SCHEMA = "1.0"
FEWEST = 10
"""Processes without which nothing can be split in two and resampled."""
RATE_SERIES = ("load", "first_token/32", "first_token/1000", "decode", "pinned")
"""Seconds, seconds, seconds, tokens a second, bytes a second."""


class BrokenPool(Reported):
    """A pool that cannot be trusted; the message says where and why."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")


class PoolTooSmall(Reported):
    """Too few values to resample."""

    def __init__(self, what: str, found: int) -> None:
        self.what, self.found = what, found
        super().__init__(f"{found} processes with {what}, and at least {FEWEST} are needed to resample them")


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="session"):
    """What holds for the lines up to the next session; `slowdowns` begin with 0, `leaks` are bytes."""

    schema: str
    started: str
    revision: str
    seed: int
    gpu: bool
    checkpoint: str
    slowdowns: tuple[float, ...]
    leaks: tuple[int, ...]
    environment: dict[str, Any]

    @property
    def machine(self) -> dict[str, str]:
        """What must be the same in all sessions of a pool: the parts that a timing depends on."""
        gpus = [gpu.get("name") for gpu in self.environment.get("gpus", [])] if self.gpu else []
        found = {
            "gpu": gpus[0] if gpus else None,
            "cpu": self.environment.get("cpu", {}).get("model"),
            "python": self.environment.get("python"),
            "torch": self.environment.get("libraries", {}).get("torch"),
        }
        return {name: str(value) for name, value in found.items() if value}


class Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="timed"):
    """One fresh process: of each series one value a slowdown, in the session's order of slowdowns."""

    values: dict[str, list[float]]


class Grown(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="line", tag="grown"):
    """One series of a growth row in one process: bytes in use first, and the steps after it, on both instruments."""

    row: str
    leak: int
    accounted: bool
    warm_up: int
    witness_name: str
    first_account: int
    first_witness: int
    account_steps: list[int]
    witness_steps: list[int]

    @property
    def account(self) -> list[int]:
        """Bytes by the engine's own account, after each operation."""
        return list(accumulate(self.account_steps, initial=self.first_account))

    @property
    def witness(self) -> list[int]:
        """Bytes that our witness sees, after each operation."""
        return list(accumulate(self.witness_steps, initial=self.first_witness))


def grown(  # noqa: PLR0917  one call site, and the record has as many fields
    row: str,
    leak: int,
    accounted: bool,
    warm_up: int,
    witness_name: str,
    account: Sequence[int],
    witness: Sequence[int],
) -> Grown:
    """A series as the pool keeps it."""
    steps = [[after - before for before, after in pairwise(series)] for series in (account, witness)]
    return Grown(row, leak, accounted, warm_up, witness_name, account[0], witness[0], *steps)


Line = Session | Timed | Grown


class Pool(msgspec.Struct, frozen=True):
    """Everything that was measured on one machine."""

    sessions: tuple[Session, ...]
    timed: tuple[Timed, ...]
    grown: tuple[Grown, ...]

    def series(self, row: str, leak: int, *, accounted: bool) -> list[Grown]:
        """The series of a growth row with this dose."""
        return [g for g in self.grown if (g.row, g.leak, g.accounted) == (row, leak, accounted)]


class PoolFile:
    """A pool to append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Line) -> None:
        """Write one line whole.

        Raises:
            OSError: it cannot be written.
        """
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")

    def mend(self) -> None:
        """Cut off what an interrupted session left of its last line."""
        if self.path.is_file():
            raw = self.path.read_bytes()
            self.path.write_bytes(raw[: raw.rfind(b"\n") + 1])


def read_pool(paths: Iterable[Path]) -> Pool:
    """Read pools of one machine as one.

    Raises:
        BrokenPool: a line is not what it should be, or two sessions do not belong together.
        OSError: a file cannot be read.
    """
    sessions: list[Session] = []
    timed: list[Timed] = []
    series: list[Grown] = []
    for path in paths:
        for line in _lines(path):
            if isinstance(line, Session):
                _require_same(path, sessions[0] if sessions else line, line)
                sessions.append(line)
            elif isinstance(line, Timed):
                timed.append(line)
            else:
                series.append(line)
        _require_one_length(path, series)
    return Pool(tuple(sessions), tuple(timed), tuple(series))


def _lines(path: Path) -> list[Line]:
    decoder = msgspec.json.Decoder(Line)
    found: list[Line] = []
    session: Session | None = None
    for number, raw in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenPool(path, f"line {number}: {error}") from error
        session = line if isinstance(line, Session) else session
        if session is None:
            raise BrokenPool(path, "line 1 is not a session")
        if cause := _wrong(line, session):
            raise BrokenPool(path, f"line {number}: {cause}")
        found.append(line)
    return found


def _wrong(line: Line, session: Session) -> str:
    if isinstance(line, Session):
        return _wrong_session(line)
    if isinstance(line, Timed):
        return _wrong_timed(line, session)
    if len(line.account_steps) != len(line.witness_steps) or len(line.account_steps) < line.warm_up:
        return f"series of {len(line.account_steps)} and {len(line.witness_steps)} steps"
    return "" if line.leak in {0, *session.leaks} else f"a leak of {line.leak} bytes is none of the session's doses"


def _wrong_session(line: Session) -> str:
    if line.schema != SCHEMA:
        return f"schema {line.schema!r}, this reader knows {SCHEMA!r}"
    if line.slowdowns[:1] != (0.0,) or list(line.slowdowns) != sorted(set(line.slowdowns)):
        return "slowdowns must begin with 0 and ascend"
    return "" if list(line.leaks) == sorted(set(line.leaks)) and min(line.leaks, default=1) > 0 else "leaks must ascend"


def _wrong_timed(line: Timed, session: Session) -> str:
    if set(line.values) != set(RATE_SERIES):
        return f"series {sorted(line.values)}"
    for name, values in line.values.items():
        if len(values) != len(session.slowdowns):
            return f"{name} has {len(values)} values for {len(session.slowdowns)} slowdowns"
        if not all(math.isfinite(value) and value > 0 for value in values):
            return f"{name} has a value that is no time or rate"
    return ""


def _require_one_length(path: Path, series: Sequence[Grown]) -> None:
    shapes: dict[str, tuple[int, int]] = {}
    for each in series:
        shape = (len(each.witness_steps) + 1, each.warm_up)
        if shapes.setdefault(each.row, shape) != shape:
            raise BrokenPool(path, f"{each.row} has series of {shape} and {shapes[each.row]} operations and warm-up")


def _require_same(path: Path, first: Session, line: Session) -> None:
    for field in ("gpu", "checkpoint", "slowdowns", "leaks", "machine"):
        one, other = getattr(first, field), getattr(line, field)
        if one != other:
            raise BrokenPool(path, f"sessions that do not belong together: {field} {one} and {other}")
