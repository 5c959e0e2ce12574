"""A benchmark's rows: what was measured, beside the limit of the same run, and with what certainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
from scipy.special import stdtrit


class Row(msgspec.Struct, frozen=True, omit_defaults=False):
    """One number.

    Attributes:
        name: What was measured: `decode`, `load`, `prefill_1000`, `ratio decode`, …
        engine: Who did it: `ours`, a peer, or `machine` for a limit.
        dtype: Of the weights; empty where there are none.
        value: Geometric mean of the repeats, in `unit`.
        unit: tok/s, s, ms, GB/s, GB or ratio.
        limit: What the machine allows, in the same unit, by limits measured in the same run; None if unknown.
        share_of_limit: `value / limit` for rates, `limit / value` for durations and sizes.
        interval: 95 % interval of `value`; None where it was measured once.
        repeats: How often it was measured.
        note: What else must be said: how, on which model, or why it is missing.
    """

    name: str
    engine: str
    dtype: str
    value: float | None
    unit: str
    limit: float | None = None
    share_of_limit: float | None = None
    interval: tuple[float, float] | None = None
    repeats: int = 1
    note: str = ""


RATES = {"tok/s", "GB/s"}


def measured(
    name: str, engine: str, dtype: str, values: Sequence[float], unit: str, limit: float | None = None, note: str = ""
) -> Row:
    """A row of repeats of one positive quantity, which vary by factors: mean and Student's interval of logarithms."""
    mean, half = spread(values)
    value = math.exp(mean)
    share = None if limit is None else value / limit if unit in RATES else limit / value
    interval = None if half is None else (math.exp(mean - half), math.exp(mean + half))
    return Row(name, engine, dtype, value, unit, limit, share, interval, len(values), note)


def missing(name: str, engine: str, dtype: str, why: str) -> Row:
    """A row of what could not be measured, with the reason."""
    return Row(name, engine, dtype, None, "", repeats=0, note=why)


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the logarithms, and half the width of its 95 % interval; None for a single value."""
    logs = [math.log(value) for value in values]
    mean = math.fsum(logs) / len(logs)
    if len(logs) == 1:
        return mean, None
    deviation = math.sqrt(math.fsum((log - mean) ** 2 for log in logs) / (len(logs) - 1))
    return mean, float(stdtrit(len(logs) - 1, 0.975)) * deviation / math.sqrt(len(logs))


def ratios(rows: Sequence[Row]) -> list[Row]:
    """How many times better ours is than each peer in the same quantity and dtype.

    The interval adds the two relative half widths in squares; without both, there is none.
    """
    ours = {(row.name, row.dtype): row for row in rows if row.engine == "ours" and row.value is not None}
    found = []
    for row in rows:
        mine = ours.get((row.name, row.dtype))
        if mine is None or row.engine == "ours" or row.value is None or mine.value is None or row.unit != mine.unit:
            continue
        better = mine.value / row.value if row.unit in RATES else row.value / mine.value
        halves = [half_width(each) for each in (mine, row)]
        wide = None if None in halves else math.hypot(*(half for half in halves if half is not None))
        interval = None if wide is None else (better * math.exp(-wide), better * math.exp(wide))
        repeats = min(mine.repeats, row.repeats)
        found.append(
            Row(f"ratio {row.name}", f"ours / {row.engine}", row.dtype, better, "ratio", None, None, interval, repeats)
        )
    return found


def half_width(row: Row) -> float | None:
    """Half the width of a row's interval, in logarithms."""
    return None if row.interval is None else math.log(row.interval[1] / row.interval[0]) / 2


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as an indented JSON list."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(rows)), indent=1) + b"\n")


def read_rows(path: Path) -> list[Row]:
    """Rows of a file that `write_rows` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row])
