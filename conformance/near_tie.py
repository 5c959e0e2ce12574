"""Rule R6: when two greedy sequences agree, nearly tie, or diverge."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conformance.observations import Agreement


class Comparison(msgspec.Struct, frozen=True):
    """How the sequences relate, the first differing step (None when identical), and why in words."""

    agreement: Agreement
    step: int | None
    why: str


def compare_greedy(
    expected: Sequence[int],
    observed: Sequence[int],
    margins: Sequence[float],
    *,
    tie_margin: float,
    reanchored: Sequence[int] | None = None,
) -> Comparison:
    """Compare greedy ids with golden ones whose top-1 minus top-2 logits are `margins`.

    A first difference is a TIE only if the reference's own margin there is at most `tie_margin` logits and the
    engine, forced back to the reference's token (`reanchored`, the ids after that step), gives the rest exactly:
    a defect does not survive re-anchoring.

    Raises:
        ValueError: there is not one margin for each expected id.
    """
    if len(margins) != len(expected):
        raise ValueError(f"{len(margins)} margins for {len(expected)} golden ids")
    step = _first_difference(expected, observed)
    if step is None:
        return Comparison(Agreement.IDENTICAL, None, f"{len(expected)} ids identical")
    want = expected[step] if step < len(expected) else "the end"
    got = observed[step] if step < len(observed) else "the end"
    where = f"step {step} of {len(expected)}: expected {want}, observed {got}"
    if step >= len(expected) or not margins[step] <= tie_margin:
        gap = f", reference margin {margins[step]:.3g}" if step < len(expected) else ""
        return Comparison(Agreement.DIVERGED, step, where + gap)
    if reanchored is None or list(reanchored) != list(expected[step + 1 :]):
        return Comparison(Agreement.DIVERGED, step, f"{where}; a near-tie that re-anchoring did not mend")
    return Comparison(Agreement.TIE, step, f"{where}; near-tie of {margins[step]:.3g}, then identical")


def _first_difference(expected: Sequence[int], observed: Sequence[int]) -> int | None:
    for step, (want, got) in enumerate(zip(expected, observed, strict=False)):
        if want != got:
            return step
    return None if len(expected) == len(observed) else min(len(expected), len(observed))
