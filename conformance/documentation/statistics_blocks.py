"""What the decision rules can and cannot see, computed with the rules themselves."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache
from itertools import accumulate

from conformance.documentation.markdown import code, table
from conformance.statistics import PAGE_BYTES, Decision, decide_growth, decide_rate
from conformance.thresholds import Limit, load_thresholds

SPREADS = (0.01, 0.03, 0.06)
RATIOS = (0.90, 0.95, 0.98, 1.00, 1.02, 1.05, 1.10)
TRIALS = 1000
CLASS_SHARES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.001)
OPERATIONS, WARM_UP, MAX_GROWTH = 120, 20, 64 * 1024 * 1024
_KIB = 1024


def sampled_limits() -> dict[tuple[str, str], Limit]:
    """The limits of all observations that rule R1 decides: those with planned looks."""
    rows = load_thresholds().rows
    return {(row, name): limit for row, limits in rows.items() for name, limit in limits.items() if limit.looks}


def sampled_rows() -> str:
    """Each observation that R1 decides, with its numbers."""
    lines = [
        [
            row,
            code(name),
            f"{limit.relation} {limit.limit:g} {limit.unit}",
            f"{limit.alpha:g}",
            "/".join(map(str, limit.looks)),
            f"{limit.max_sd:.0%}",
        ]
        for (row, name), limit in sampled_limits().items()
    ]
    return table(["row", "observation", "limit", "error rate", "looks at", "largest spread"], lines)


def error_rates() -> str:
    """The bound on wrong verdicts over a whole trial, from the rates of its rows."""
    rates = [limit.alpha for limit in sampled_limits().values() if limit.alpha is not None]
    return (
        f"{len(rates)} limits are decided by R1, with error rates that add up to {math.fsum(rates):.1%}: an engine "
        "that lies exactly on all of them is called FALSIFIED somewhere at most that often, one series a limit."
    )


@cache
def rate_characteristics() -> str:
    """How often R1 decides, by true distance from the limit and by spread; simulated with the rule itself."""
    limit = next(iter(sampled_limits().values()))
    lines = [_characteristic(sd, ratio, limit) for sd in SPREADS for ratio in RATIOS]
    head = ["spread of runs", "true value / limit", "CORROBORATED", "FALSIFIED", "INCONCLUSIVE", "mean runs"]
    return table(head, lines)


def _characteristic(sd: float, ratio: float, limit: Limit) -> list[str]:
    source = random.Random(f"{sd}/{ratio}")  # noqa: S311  a reproducible simulation
    ends = [_sequential(lambda: math.exp(source.gauss(math.log(ratio), sd)), limit) for _ in range(TRIALS)]
    shares = [sum(decision is kind for decision, _ in ends) / TRIALS for kind in Decision]
    runs = sum(count for _, count in ends) / TRIALS
    return [f"{sd:.0%}", f"{ratio:.2f}", *(f"{share:.1%}" for share in shares), f"{runs:.1f}"]


def _sequential(draw: Callable[[], float], limit: Limit) -> tuple[Decision, int]:
    """One trial as a check makes it: stop at the first look that decides. Larger is better, the limit is 1."""
    assert limit.alpha is not None
    assert limit.max_sd is not None
    values: list[float] = []
    decision = Decision.UNDECIDED
    for look in limit.looks:
        values += [draw() for _ in range(look - len(values))]
        decision = decide_rate(
            values, 1.0, larger_is_better=True, alpha=limit.alpha, looks=limit.looks, max_sd=limit.max_sd
        ).decision
        if decision is not Decision.UNDECIDED:
            break
    return decision, len(values)


def growth_characteristics() -> str:
    """What R3 says of made-up leaks, with an honest account and with one that says nothing."""
    lines = [
        [name, *(_growth(series, honest=honest) for honest in (True, False))]
        for name, series in (
            ("nothing", _steady(0)),
            ("64 MiB in the first 10 operations, then nothing", _grown(lambda i: 64 * _KIB**2 // 10 if i < 10 else 0)),  # noqa: PLR2004
            ("1 KiB an operation", _steady(1 * _KIB)),
            ("64 KiB an operation", _steady(64 * _KIB)),
            ("256 KiB an operation", _steady(256 * _KIB)),
            ("1 MiB an operation", _steady(_KIB**2)),
            ("4 MiB every 10 operations", _grown(lambda i: 4 * _KIB**2 if i % 10 == 0 else 0)),
            ("4 MiB every 25 operations", _grown(lambda i: 4 * _KIB**2 if i % 25 == 0 else 0)),
        )
    ]
    return table(["what is leaked", "honest account", "account that never moves"], lines)


def smallest_seen_leak() -> str:
    """The smallest steady leak that each instrument alone shows, in KiB an operation, found by trying."""
    own = next(size for size in range(1, 4096) if _growth(_steady(size * _KIB), honest=True) == Decision.VIOLATES)
    seen = next(size for size in range(1, 4096) if _growth(_steady(size * _KIB), honest=False) == Decision.VIOLATES)
    return (
        f"With {OPERATIONS} operations of which {WARM_UP} warm up, of the leaks of whole KiB an operation the smallest "
        f"that is shown is {own} KiB on an honest account and {seen} KiB where the witness alone sees it, in pages "
        f"of {PAGE_BYTES // _KIB**2} MiB."
    )


def _steady(nbytes: int) -> list[int]:
    return _grown(lambda _: nbytes)


def _grown(step: Callable[[int], int]) -> list[int]:
    return list(accumulate(step(index) for index in range(OPERATIONS)))


def _growth(series: list[int], *, honest: bool) -> str:
    account = series if honest else [0] * len(series)
    bare = 128 * PAGE_BYTES
    pages = [bare + -(-value // PAGE_BYTES) * PAGE_BYTES for value in series]
    return decide_growth(account, pages, warm_up=WARM_UP, max_growth=MAX_GROWTH).decision.value


def class_examples() -> str:
    """R7: examples that meet a class member of a given share with 95 % chance."""
    lines = [[f"{share:.1%}", str(math.ceil(math.log(0.05) / math.log1p(-share)))] for share in CLASS_SHARES]
    return table(["share of the class that the engine gets wrong", "examples for a 95 % chance to meet one"], lines)


def near_tie_rows() -> str:
    """Each observation that R6 decides, with its margin, grouped by margin."""
    rows = load_thresholds().rows
    margins: dict[float, list[str]] = {}
    for row, limits in rows.items():
        for name, limit in limits.items():
            if limit.tie_margin is not None:
                margins.setdefault(limit.tie_margin, []).append(f"{row} {code(name)}")
    lines = [[f"{margin:g}", ", ".join(names)] for margin, names in sorted(margins.items())]
    return table(["near-tie margin in logits", "observations"], lines)
