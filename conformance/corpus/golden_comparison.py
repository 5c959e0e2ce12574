"""Two golden runs of one checkpoint: what differs between what is stored and what was computed again."""

from __future__ import annotations

import numpy as np

from conformance.corpus.goldens import GoldenCase, GoldenForced, Goldens

LOGIT_TOLERANCE = 1e-4
NOISE_RATIO = 1.5
"""How far the rounding noise of two right golden runs may be apart: it is a maximum over rounding errors."""


def compare_goldens(stored: Goldens, rebuilt: Goldens) -> list[str]:
    """One line for each case that is missing on either side or differs; logits count in F32 only."""
    differences = []
    before, after = stored.by_name, rebuilt.by_name
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            differences.append(f"{name}: only {'stored' if name in before else 'rebuilt'}")
        elif _exact_part(before[name]) != _exact_part(after[name]):
            differences.append(f"{name}: prompt, ids or text differ")
        elif stored.run.dtype == "F32":
            distance = _logit_distance(stored, before[name], rebuilt, after[name])
            if not distance <= LOGIT_TOLERANCE:
                differences.append(f"{name}: logits differ by {distance:.2g}")
    return differences + _noise_differences(stored.run.noise, rebuilt.run.noise)


def _noise_differences(stored: float | None, rebuilt: float | None) -> list[str]:
    if stored is None or rebuilt is None or max(stored, rebuilt) <= NOISE_RATIO * min(stored, rebuilt):
        return []
    return [f"rounding noise {rebuilt:.2g}, {stored:.2g} stored"]


def _exact_part(case: GoldenCase | GoldenForced) -> tuple[object, ...]:
    if isinstance(case, GoldenForced):
        return case.rows, case.ids, case.positions, case.argmax
    return case.rows, case.prompt_ids, case.ids, case.stop_id, case.text, case.answered


def _logit_distance(
    stored: Goldens, before: GoldenCase | GoldenForced, rebuilt: Goldens, after: GoldenCase | GoldenForced
) -> float:
    columns, logits = stored.logits(before)
    other_columns, other_logits = rebuilt.logits(after)
    if not np.array_equal(columns, other_columns):
        return float("inf")
    top = np.abs(stored.top(before)[1] - rebuilt.top(after)[1])
    return float(np.max([top.max(), np.abs(logits - other_logits).max(initial=0.0)]))
