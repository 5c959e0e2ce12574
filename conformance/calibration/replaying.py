"""Replays the pure judge on resamples of a pool, exactly as a trial asks it: look by look, until it decides.

Rule R9: far from its limit an engine can never alarm, so the limit is set where it bites. The exact limit is the
geometric mean of the healthy pool, which makes the resampled engine lie exactly on it; the others stand at the median
of one random half of the healthy values, widened by a margin, while the values judged are drawn from the other half.
Growth is resampled block by block: each is the same block of some process of the pool, as far above that process's
first block as it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from conformance.calibration.pool import FEWEST, Grown, Pool, PoolTooSmall
from conformance.calibration.results import (
    SCHEMA,
    CalibratedGrowth,
    CalibratedRate,
    Calibration,
    Counts,
    LeakCell,
    LimitCurve,
    SessionNote,
    SlowedCell,
    counted,
)
from conformance.catalogue import load_catalogue
from conformance.judge import Situation, judge
from conformance.observations import Growth, Observation, Sample
from conformance.statistics import BLOCKS
from conformance.thresholds import Limit, Thresholds, load_thresholds
from conformance.verdicts import Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

MARGINS = (0.0, 0.01, 0.02, 0.05, 0.10)
STRICTER = (0, 2 << 20, 16 << 20)
"""Limits of growth, in bytes, at which the healthy engine is judged besides the row's own."""
_SITUATION = Situation(gpu=True, is_reference=True)


class RateRow(NamedTuple):
    """A timed observation and the series of the pool that stands for it."""

    row: str
    name: str
    series: str


RATE_ROWS = (
    RateRow("F-MEM-029", "bandwidth", "pinned"),
    RateRow("F-MEM-033", "ratio_to_pageable", "pinned"),
    RateRow("F-PERF-081", "load", "load"),
    RateRow("F-PERF-082", "first_token/32", "first_token/32"),
    RateRow("F-PERF-082", "first_token/1000", "first_token/1000"),
    RateRow("F-PERF-083", "rate", "decode"),
    RateRow("F-PERF-084", "rate", "decode"),
    RateRow("F-PERF-089", "ratio_to_cpu", "decode"),
    RateRow("F-PERF-090", "ratio_to_peer", "pairs"),
)
GROWTH_ROWS = (("F-CUDA-020", "cycles"), ("F-MEM-032", "uploads"), ("F-PERF-087", "generations"))
_UNITS = {"pinned": "B/s", "decode": "tok/s", "pairs": "x"}


class NoVerdict(Exception):
    """The judge called a resample neither way; calibration would count what it does not understand."""

    def __init__(self, row: str, verdict: str, reason: str) -> None:
        self.row = row
        super().__init__(f"{row}: a resample was judged {verdict}: {reason}")


def replay(pool: Pool, *, replays: int, seed: int, say: Callable[[str], None] = lambda _: None) -> Calibration:
    """Replay the judge over all rows that the pool has values for.

    Raises:
        PoolTooSmall: there are values of neither kind, or too few of one.
        NoVerdict: a resample has no verdict of the rules.
    """
    if not pool.sessions or not (pool.timed or pool.grown):
        raise PoolTooSmall("values", 0)
    thresholds = load_thresholds()
    first = pool.sessions[0]
    return Calibration(
        schema=SCHEMA,
        machine=first.machine,
        gpu=first.gpu,
        checkpoint=first.checkpoint,
        sessions=tuple(SessionNote(s.started, s.revision) for s in pool.sessions),
        thresholds_sha256=thresholds.sha256,
        seed=seed,
        replays=replays,
        rates=tuple(_rates(pool, thresholds, replays, seed, say)),
        growth=tuple(_growth(pool, thresholds, replays, seed, say)),
    )


# --- rates ------------------------------------------------------------------------------------------------


def _rates(
    pool: Pool, thresholds: Thresholds, replays: int, seed: int, say: Callable[[str], None]
) -> Iterator[CalibratedRate]:
    if not pool.timed:
        return
    if len(pool.timed) < FEWEST:
        raise PoolTooSmall("timed values", len(pool.timed))
    slowdowns = pool.sessions[0].slowdowns
    known: dict[tuple[object, ...], CalibratedRate] = {}
    for which in RATE_ROWS:
        limit = thresholds.limit(which.row, which.name)
        assert limit is not None
        # Rows that share a series and the rule's numbers differ in their limit alone, and that is replaced.
        key = (which.series, _larger_is_better(limit), limit.alpha, limit.looks, limit.max_sd)
        if key not in known:
            say(f"{which.row} {which.name}")
            values = series_of(pool, which.series)
            known[key] = calibrated_rate(which, limit, values, slowdowns, replays=replays, seed=seed)
        yield msgspec.structs.replace(known[key], row=which.row, name=which.name)


def series_of(pool: Pool, series: str) -> Values:
    """Values of a series, one line a slowdown and one column a process.

    `pairs` is each process's rate over the healthy one of the next process: neighbours stand for an engine and a peer
    that is its equal.
    """
    name = "decode" if series == "pairs" else series
    values: Values = np.array([timed.values[name] for timed in pool.timed], dtype=np.float64).T
    return values / np.roll(values[0], -1) if series == "pairs" else values


def calibrated_rate(
    which: RateRow, limit: Limit, values: Values, slowdowns: Sequence[float], *, replays: int, seed: int
) -> CalibratedRate:
    """All curves of one observation.

    Args:
        which: The observation.
        limit: Its numbers; only where the limit stands is replaced.
        values: float64 [slowdowns, processes]; the first line is healthy.
        slowdowns: Of the lines.
        replays: A cell.
        seed: Of all resampling.
    """
    logs = np.log(values[0])
    curves = []
    for margin in (None, *MARGINS):
        cells = []
        for slowdown, slowed in zip(slowdowns, values, strict=True):
            source = np.random.default_rng([seed, *f"{which} {margin} {slowdown}".encode()])
            bounds, samples = _resampled(values[0], slowed, limit, margin, replays, source)
            cells.append(SlowedCell(slowdown, _judged(which, limit, bounds, samples)))
        curves.append(LimitCurve(margin, tuple(cells)))
    return CalibratedRate(
        row=which.row,
        name=which.name,
        series=which.series,
        alpha=limit.alpha or 0.0,
        looks=limit.looks,
        max_sd=limit.max_sd or 0.0,
        processes=values.shape[1],
        mean=float(np.exp(logs.mean())),
        unit=_UNITS.get(which.series, "s"),
        spread=float(logs.std(ddof=1)),
        curves=tuple(curves),
    )


def _resampled(  # noqa: PLR0917  one call site
    healthy: Values, slowed: Values, limit: Limit, margin: float | None, replays: int, source: np.random.Generator
) -> tuple[Values, Values]:
    """A limit a replay, and the values of its runs in the order of the looks."""
    runs, processes = limit.looks[-1], len(healthy)
    if margin is None:
        bound = math.exp(float(np.log(healthy).mean()))
        return np.full(replays, bound), slowed[source.integers(processes, size=(replays, runs))]
    order = source.permuted(np.tile(np.arange(processes), (replays, 1)), axis=1)
    half = processes // 2
    medians = np.median(healthy[order[:, :half]], axis=1)
    drawn = half + source.integers(processes - half, size=(replays, runs))
    widened = medians / (1 + margin) if _larger_is_better(limit) else medians * (1 + margin)
    return widened, slowed[np.take_along_axis(order, drawn, axis=1)]


def _larger_is_better(limit: Limit) -> bool:
    return limit.relation in {">", ">="}


def _judged(which: RateRow, limit: Limit, bounds: Values, samples: Values) -> Counts:
    verdicts: Counter[Verdict] = Counter()
    runs = 0
    ask = _asked(which.row, which.name)
    for bound, values in zip(bounds.tolist(), samples.tolist(), strict=True):
        here = msgspec.structs.replace(limit, limit=bound)
        for look in limit.looks:
            verdict = ask(Sample(name=which.name, values=values[:look], unit=""), here)
            if verdict is not Verdict.INCONCLUSIVE:
                break
        verdicts[verdict] += 1
        runs += look
    return _counts(verdicts, runs / len(bounds))


def _counts(verdicts: Counter[Verdict], mean_runs: float = 0.0) -> Counts:
    found, cleared, open_ = (verdicts[v] for v in (Verdict.FALSIFIED, Verdict.CORROBORATED, Verdict.INCONCLUSIVE))
    return counted(found, cleared, open_, mean_runs)


def _asked(row_id: str, name: str) -> Callable[[Observation, Limit], Verdict]:
    """The judge, asked about this one observation of a row; a softened verdict counts as what it was."""
    base = name.split("/", 1)[0]
    row = msgspec.structs.replace(load_catalogue().row(row_id), observes=(base,), observes_on_gpu=())

    def ask(observation: Observation, limit: Limit) -> Verdict:
        found = judge(row, [observation], Thresholds({row_id: {name: limit}}, ""), _SITUATION)
        if found.verdict is Verdict.WARNING:
            return Verdict.FALSIFIED
        if found.verdict in {Verdict.ERROR, Verdict.UNTESTED}:
            raise NoVerdict(row_id, found.verdict.value, found.reason)
        return found.verdict

    return ask


# --- growth -----------------------------------------------------------------------------------------------


def _growth(
    pool: Pool, thresholds: Thresholds, replays: int, seed: int, say: Callable[[str], None]
) -> Iterator[CalibratedGrowth]:
    for row, name in GROWTH_ROWS if pool.grown else ():
        say(f"{row} {name}")
        limit = thresholds.limit(row, name)
        assert limit is not None
        yield calibrated_growth(row, name, limit, [g for g in pool.grown if g.row == row], replays=replays, seed=seed)


def calibrated_growth(
    row: str, name: str, limit: Limit, series: Sequence[Grown], *, replays: int, seed: int
) -> CalibratedGrowth:
    """The healthy engine at several limits, and each leak at the row's own.

    Raises:
        PoolTooSmall: a dose has too few series.
    """
    assert limit.max_growth is not None
    doses = sorted({(g.leak, g.accounted) for g in series})
    sizes, cells = [], []
    for leak, accounted in doses:
        mine = [g for g in series if (g.leak, g.accounted) == (leak, accounted)]
        if len(mine) < FEWEST:
            raise PoolTooSmall(f"{row} leaking {leak} bytes", len(mine))
        sizes.append(len(mine))
        for allowed in (*STRICTER, limit.max_growth) if leak == 0 else (limit.max_growth,):
            source = np.random.default_rng([seed, *f"{row} {leak} {accounted} {allowed}".encode()])
            here = msgspec.structs.replace(limit, max_growth=allowed)
            cells.append(LeakCell(leak, accounted, allowed, _grown(row, name, here, mine, replays, source)))
    if not doses or doses[0] != (0, False):
        raise PoolTooSmall(f"{row} and no leak", 0)
    return CalibratedGrowth(row, name, min(sizes), series[0].witness_name, limit.max_growth, tuple(cells))


def _grown(  # noqa: PLR0917  one call site
    row: str, name: str, limit: Limit, series: Sequence[Grown], replays: int, source: np.random.Generator
) -> Counts:
    verdicts: Counter[Verdict] = Counter()
    warm_up = series[0].warm_up
    account, witness = (
        _recomposed(np.array([getattr(g, which) for g in series], dtype=np.int64), warm_up)
        for which in ("account", "witness")
    )
    ask = _asked(row, name)
    for chosen in source.integers(len(series), size=(replays, 1 + BLOCKS)):
        observation = Growth(
            name=name, account=account(chosen), witness=witness(chosen), witness_name="resampled", warm_up=warm_up
        )
        verdicts[ask(observation, limit)] += 1
    return _counts(verdicts)


def _recomposed(levels: NDArray[np.int64], warm_up: int) -> Callable[[Any], list[int]]:
    """A series whose warm-up is that of one process, and each block that of another.

    A block keeps how far it lies above the first block of its own process, so that noise which comes and goes stays
    what it is, and growth goes on from block to block.

    Args:
        levels: int64 [series, operations], bytes in use after each.
        warm_up: Operations before the blocks.
    """
    size = (levels.shape[1] - warm_up) // BLOCKS
    kept = levels[:, warm_up : warm_up + BLOCKS * size].reshape(len(levels), BLOCKS, size)
    base = np.median(kept[:, 0], axis=1).astype(np.int64)
    above = kept - base[:, None, None]
    blocks = np.arange(BLOCKS)

    def compose(chosen: NDArray[np.int64]) -> list[int]:
        rest = base[chosen[0]] + above[chosen[1:], blocks].ravel()
        composed: list[int] = [*levels[chosen[0], :warm_up].tolist(), *rest.tolist()]
        return composed

    return compose
