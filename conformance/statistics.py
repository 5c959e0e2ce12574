"""Decision rules with known error rates: pure functions of numbers and limits.

R1 decides a rate or a time against a limit from one value per fresh process, sequentially, on logarithms.
R3 decides growth from a series of bytes in use, by steps between block medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec
from scipy.special import stdtrit

PAGE_BYTES = 2 * 1024 * 1024
"""NVML counts device memory in pages of 2 MiB; growth below one page per block is invisible to it."""
BLOCKS = 8
"""Into so many blocks R3 cuts a series."""
_LARGEST_EXPONENT = 700.0


class Decision(StrEnum):
    """Three-valued outcome of a rule."""

    MEETS = "meets"
    VIOLATES = "violates"
    UNDECIDED = "undecided"


class RateDecision(msgspec.Struct, frozen=True):
    """R1's outcome: the interval of the mean (geometric) in the sample's unit, spread of logarithms, and runs used."""

    decision: Decision
    mean: float
    interval: tuple[float, float]
    sd: float
    runs: int
    detectable: float
    why: str


def decide_rate(
    values: Sequence[float],
    limit: float,
    *,
    larger_is_better: bool,
    alpha: float,
    looks: Sequence[int],
    max_sd: float,
) -> RateDecision:
    """Rule R1: a one-sided t interval on log(value / limit) at the last planned look that has been reached.

    `alpha` is the whole error rate of either verdict, split evenly over the looks. `detectable` is the relative
    distance from the limit that this many runs with this spread decide half of the time.

    Raises:
        ValueError: a value or the limit is not a positive, finite number.
    """
    if limit <= 0 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError("rates and limits must be positive and finite")
    reached = max((look for look in looks if look <= len(values)), default=0)
    if reached < 2:  # noqa: PLR2004  a spread needs two values
        return _too_few(values, looks)
    logs = [math.log(value / limit) for value in values[:reached]]
    mean = math.fsum(logs) / reached
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (reached - 1))
    half = float(stdtrit(reached - 1, 1 - alpha / len(looks))) * sd / math.sqrt(reached)
    sign = 1.0 if larger_is_better else -1.0
    decision, why = _place(sign * mean, half, sd, max_sd)
    interval = (limit * _exp(mean - half), limit * _exp(mean + half))
    return RateDecision(decision, limit * _exp(mean), interval, sd, reached, _exp(half) - 1, why)


def _exp(x: float) -> float:
    return math.exp(x) if x < _LARGEST_EXPONENT else math.inf


def _place(distance: float, half: float, sd: float, max_sd: float) -> tuple[Decision, str]:
    if sd > max_sd:
        return Decision.UNDECIDED, f"spread {sd:.1%} between runs exceeds {max_sd:.0%}"
    if distance - half > 0:
        return Decision.MEETS, "the interval lies on the good side of the limit"
    if distance + half < 0:
        return Decision.VIOLATES, "the interval lies on the bad side of the limit"
    return Decision.UNDECIDED, "the interval contains the limit"


def _too_few(values: Sequence[float], looks: Sequence[int]) -> RateDecision:
    mean = _exp(math.fsum(map(math.log, values)) / len(values)) if values else math.nan
    why = f"{len(values)} runs; the first look is at {min(looks, default=0)}"
    return RateDecision(Decision.UNDECIDED, mean, (0.0, math.inf), math.nan, len(values), math.inf, why)


class GrowthDecision(msgspec.Struct, frozen=True):
    """R3's outcome: steps up among all steps on both instruments, and growth from first to last block in bytes."""

    decision: Decision
    account_steps: tuple[int, int]
    witness_steps: tuple[int, int]
    account_growth: int
    witness_growth: int
    why: str


def decide_growth(
    account: Sequence[int],
    witness: Sequence[int],
    *,
    warm_up: int,
    blocks: int = BLOCKS,
    max_growth: int,
) -> GrowthDecision:
    """Rule R3: a leak is growth that goes on after the warm-up, block by block.

    The series after `warm_up` is cut into `blocks`; a block's value is its median. A leak is shown by the engine's
    own account (at most one step of all fails to rise), or by the witness in whole pages (likewise), or by either
    growing more than `max_growth` bytes. The account alone never clears the engine: a witness that saw nothing at
    all decides nothing.

    Raises:
        ValueError: the series are too short for two values a block, or of different lengths.
    """
    if len(account) != len(witness) or len(witness) - warm_up < 2 * blocks:
        raise ValueError(f"{len(witness)} values with {warm_up} of warm-up do not make {blocks} blocks")
    own = _block_medians(account, warm_up, blocks)
    seen = _block_medians(witness, warm_up, blocks)
    own_up = sum(b > a for a, b in pairwise(own))
    seen_up = sum(b - a >= PAGE_BYTES for a, b in pairwise(seen))
    steps, enough = blocks - 1, blocks - 2
    own_growth, seen_growth = own[-1] - own[0], seen[-1] - seen[0]
    decision, why = _growing(own_up >= enough, seen_up >= enough, own_growth, seen_growth, max_growth)
    if decision is Decision.MEETS and max(seen) <= 0:
        decision, why = Decision.UNDECIDED, "the witness saw no memory at all: it is blind"
    return GrowthDecision(decision, (own_up, steps), (seen_up, steps), own_growth, seen_growth, why)


def smallest_visible(operations: int, warm_up: int, blocks: int = BLOCKS) -> int:
    """Bytes an operation from which on a steady leak moves the witness by a whole page in every block."""
    return -(-PAGE_BYTES // ((operations - warm_up) // blocks))


def _growing(
    own_leaks: bool, seen_leaks: bool, own_growth: int, seen_growth: int, max_growth: int
) -> tuple[Decision, str]:
    if own_leaks:
        return Decision.VIOLATES, f"the engine's own account rises block after block, by {own_growth} bytes"
    if seen_leaks:
        return Decision.VIOLATES, f"the witness rises block after block, by {seen_growth} bytes"
    if max(own_growth, seen_growth) > max_growth:
        return (
            Decision.VIOLATES,
            f"{max(own_growth, seen_growth)} bytes more at the end than after the warm-up",
        )
    if min(own_growth, seen_growth) < -max_growth:
        return Decision.UNDECIDED, "memory in use shrank: something else was measured"
    return Decision.MEETS, "no growth that goes on"


def _block_medians(series: Sequence[int], warm_up: int, blocks: int) -> list[int]:
    kept = series[warm_up:]
    size = len(kept) // blocks
    chunks = (sorted(kept[i * size : (i + 1) * size]) for i in range(blocks))
    return [chunk[len(chunk) // 2] for chunk in chunks]
