"""What the replays gave: counts with their bounds, as a file that says no more than it can show again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from scipy.special import betaincinv

from conformance.reported import Reported

SCHEMA = "1.0"
CONFIDENCE = 0.95
SEEN = 0.95
"""A dose counts as seen where it is FALSIFIED at least so often."""


class BrokenCalibration(Reported):
    """A calibration that cannot be trusted; the message says where and why."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all parts: a misspelt field is an error."""


class Counts(_Strict, frozen=True):
    """How many replays ended in each verdict, and the Clopper-Pearson bounds (95 %) of the share FALSIFIED.

    `mean_runs` is how many values a replay took.
    """

    falsified: int
    corroborated: int
    inconclusive: int
    bounds: tuple[float, float]
    mean_runs: float = 0.0

    @property
    def replays(self) -> int:
        """Of all verdicts."""
        return self.falsified + self.corroborated + self.inconclusive

    @property
    def share(self) -> float:
        """Share FALSIFIED."""
        return self.falsified / self.replays


class SlowedCell(_Strict, frozen=True):
    """What became of an engine slower by this share."""

    slowdown: float
    counts: Counts


class LimitCurve(_Strict, frozen=True):
    """A limit, and what became of each slowdown against it.

    `margin` is how far beyond the healthy median of a disjoint half of the pool the limit stands, as a share; None is
    the limit on which the healthy engine lies exactly: the geometric mean of its whole pool.
    """

    margin: float | None
    cells: tuple[SlowedCell, ...]


class CalibratedRate(_Strict, frozen=True):
    """A row that rule R1 decides: how the healthy values lie, and the curves.

    `series` names the values of the pool that stand for the row, whose limit is replaced whatever it compares them
    with; `mean` is geometric, `spread` the standard deviation of logarithms, `processes` the size of the pool. `alpha`,
    `looks` and `max_sd` are the rule's numbers that were replayed.
    """

    row: str
    name: str
    series: str
    alpha: float
    looks: tuple[int, ...]
    max_sd: float
    processes: int
    mean: float
    unit: str
    spread: float
    curves: tuple[LimitCurve, ...]

    @property
    def on_limit(self) -> LimitCurve:
        """The curve of the limit on which the healthy engine lies exactly."""
        return next(curve for curve in self.curves if curve.margin is None)

    @property
    def false_alarm(self) -> Counts:
        """Of the healthy engine that lies exactly on its limit."""
        return self.on_limit.cells[0].counts

    @property
    def detects(self) -> float | None:
        """The smallest slowdown beyond the limit that is seen, as a share; None if none of the doses is."""
        return next((c.slowdown for c in self.on_limit.cells[1:] if c.counts.share >= SEEN), None)


class LeakCell(_Strict, frozen=True):
    """What became of an engine that keeps so many bytes an operation, with or without showing them in its account."""

    leak: int
    accounted: bool
    max_growth: int
    counts: Counts


class CalibratedGrowth(_Strict, frozen=True):
    """A row that rule R3 decides. `series` is the size of the pool; healthy cells come with stricter limits, too."""

    row: str
    name: str
    series: int
    witness_name: str
    max_growth: int
    cells: tuple[LeakCell, ...]

    @property
    def false_alarm(self) -> Counts:
        """Of the healthy engine at the row's own limit."""
        return next(c.counts for c in self.cells if c.leak == 0 and c.max_growth == self.max_growth)

    def leaks(self, *, accounted: bool) -> list[LeakCell]:
        """The cells of planted leaks, smallest first."""
        return sorted((c for c in self.cells if c.leak and c.accounted == accounted), key=lambda cell: cell.leak)

    def detects(self, *, accounted: bool) -> int | None:
        """The smallest leak an operation that is seen, in bytes; None if none of the doses is."""
        return next((c.leak for c in self.leaks(accounted=accounted) if c.counts.share >= SEEN), None)


class SessionNote(_Strict, frozen=True):
    """When values were taken, and of which sources."""

    started: str
    revision: str


class Calibration(_Strict, frozen=True):
    """One machine's calibration. `machine` is what a timing depends on: processor, device, versions."""

    schema: str
    machine: dict[str, str]
    gpu: bool
    checkpoint: str
    sessions: tuple[SessionNote, ...]
    thresholds_sha256: str
    seed: int
    replays: int
    rates: tuple[CalibratedRate, ...]
    growth: tuple[CalibratedGrowth, ...]

    @property
    def name(self) -> str:
        """The machine in a few words."""
        return self.machine.get("gpu") or self.machine.get("cpu") or "this machine"


def counted(falsified: int, corroborated: int, inconclusive: int, mean_runs: float = 0.0) -> Counts:
    """Counts with their bounds."""
    bounds = clopper_pearson(falsified, falsified + corroborated + inconclusive)
    return Counts(falsified, corroborated, inconclusive, bounds, mean_runs)


def clopper_pearson(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact two-sided interval of a share, after Clopper and Pearson (1934).

    Raises:
        ValueError: there are no trials, or more hits than trials.
    """
    if not 0 <= hits <= trials or trials == 0:
        raise ValueError(f"{hits} of {trials} is no share")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def read_calibration(path: Path) -> Calibration:
    """Read what `falsify calibrate` wrote, and compute its bounds again.

    Raises:
        BrokenCalibration: another shape, counts that do not add up, bounds that are not those of the counts.
        OSError: it cannot be read.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenCalibration(path, str(error)) from error
    if found.schema != SCHEMA:
        raise BrokenCalibration(path, f"schema {found.schema!r}, this reader knows {SCHEMA!r}")
    for where, counts in _all_counts(found):
        if cause := _wrong(counts, found.replays):
            raise BrokenCalibration(path, f"{where}: {cause}")
    for rate in found.rates:
        if [curve.margin for curve in rate.curves].count(None) != 1 or not all(c.cells for c in rate.curves):
            raise BrokenCalibration(path, f"{rate.row} {rate.name}: one curve of the exact limit, and cells in each")
    for growth in found.growth:
        if not any(cell.leak == 0 and cell.max_growth == growth.max_growth for cell in growth.cells):
            raise BrokenCalibration(path, f"{growth.row} {growth.name}: the healthy engine is not among its cells")
    return found


def _all_counts(found: Calibration) -> Iterator[tuple[str, Counts]]:
    for rate in found.rates:
        for curve in rate.curves:
            for cell in curve.cells:
                yield f"{rate.row} {rate.name} slowed by {cell.slowdown:g}", cell.counts
    for growth in found.growth:
        for leaking in growth.cells:
            yield f"{growth.row} {growth.name} leaking {leaking.leak}", leaking.counts


def _wrong(counts: Counts, replays: int) -> str:
    if min(counts.falsified, counts.corroborated, counts.inconclusive) < 0 or counts.replays != replays:
        return f"verdicts of {counts.replays} replays, not {replays}"
    again = clopper_pearson(counts.falsified, counts.replays)
    same = all(
        math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) for one, other in zip(counts.bounds, again, strict=True)
    )
    return "" if same else f"bounds {counts.bounds} are not those of {counts.falsified} of {counts.replays}"


def pooled(sizes: Sequence[int]) -> str:
    """The size of pools in words: one number where they agree."""
    return f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
