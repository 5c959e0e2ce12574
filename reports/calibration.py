"""Calibration → one self-contained HTML page, a section of the scorecard, and a sentence a timed row."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from conformance.calibration.results import CalibratedGrowth, CalibratedRate, Calibration, Counts, LimitCurve, pooled
from reports.curves import leak_curves, slowdown_curves
from reports.extra import Extra, row_link, table
from reports.scorecard import page_template
from reports.text import duration, file_size, number, one_line

_TITLE = "How far can the timed rows be trusted?"


def calibration_page(calibration: Calibration) -> str:
    """The page: a table of all rows, then each row with its curves; no network, no script, no clock."""
    sizes = [rate.processes for rate in calibration.rates] + [growth.series for growth in calibration.growth]
    return page_template("calibration.html.jinja").render(
        calibration=calibration,
        pool=pooled(sizes),
        machine=[(name, one_line(value, 120)) for name, value in sorted(calibration.machine.items())],
        rates=[(rate, Markup(slowdown_curves(rate))) for rate in calibration.rates],  # noqa: S704  svg.py escapes
        share=share,
        rate_sentence=rate_sentence,
        growth_sentence=growth_sentence,
        limit_words=limit_words,
        leak_words=leak_words,
        mean_words=mean_words,
        growth=[(growth, Markup(leak_curves(growth))) for growth in calibration.growth],  # noqa: S704  svg.py escapes
    )


def share(counts: Counts) -> str:
    """Share FALSIFIED with its bounds: `3 of 4,000 (0.02 % to 0.22 %)`."""
    low, high = counts.bounds
    return f"{counts.falsified:,} of {counts.replays:,} ({_percent(low)} to {_percent(high)})"


def rate_sentence(rate: CalibratedRate, calibration: Calibration) -> str:
    """One sentence: error rate and detectable effect."""
    seen = "none of the planted slowdowns is" if rate.detects is None else f"one {rate.detects:.0%} beyond its limit is"
    return (
        f"On {one_line(calibration.name, 60)} an engine exactly on the limit of {rate.name} was called FALSIFIED in "
        f"{share(rate.false_alarm)} replays on resamples of {rate.processes} processes (spread {rate.spread:.1%}); "
        f"{seen} seen at least 95 times in 100."
    )


def growth_sentence(growth: CalibratedGrowth, calibration: Calibration) -> str:
    """One sentence: error rate and detectable leak."""
    told = [
        f"{_seen(growth.detects(accounted=accounted))} {where}"
        for accounted, where in ((True, "where the engine's account shows it"), (False, "where only the witness does"))
        if growth.leaks(accounted=accounted)
    ]
    return (
        f"On {one_line(calibration.name, 60)} the healthy engine was called FALSIFIED in {share(growth.false_alarm)} "
        f"replays on resamples of {growth.series} series; at least 95 times in 100 a leak is seen "
        f"{', and '.join(told)}."
    )


def sentences(calibrations: Sequence[Calibration]) -> dict[str, list[str]]:
    """The sentences of each row, machine by machine."""
    told: dict[str, list[str]] = {}
    for calibration in calibrations:
        for rate in calibration.rates:
            told.setdefault(rate.row, []).append(rate_sentence(rate, calibration))
        for growth in calibration.growth:
            told.setdefault(growth.row, []).append(growth_sentence(growth, calibration))
    return told


def calibration_section(calibrations: Sequence[Calibration]) -> Extra:
    """The section of the scorecard: a sentence a row, or that nothing was measured."""
    if not calibrations:
        return Extra("calibration", _TITLE, Markup("<p>Not measured: no calibration was given to this page.</p>"))
    rows: list[list[Markup | str]] = [
        [row_link(row), sentence] for row, told in sorted(sentences(calibrations).items()) for sentence in told
    ]
    head = Markup("<p>The judge was asked again on resamples of values that were measured on {}; {}.</p>").format(
        " and on ".join(one_line(each.name, 60) for each in calibrations),
        "the limit stands where it bites, whatever the row's own limit is",
    )
    return Extra("calibration", _TITLE, head + table(["row", "error rate and detectable effect"], rows, _TITLE))


def limit_words(curve: LimitCurve) -> str:
    """Where a limit stands, in words."""
    if curve.margin is None:
        return "exactly on the healthy mean"
    return f"{curve.margin:.0%} beyond the healthy median of the other half"


def leak_words(leak: int) -> str:
    """A leak an operation, in words."""
    return f"{file_size(leak)} an operation" if leak else "none"


def mean_words(rate: CalibratedRate) -> str:
    """The healthy mean in its unit."""
    return duration(rate.mean) if rate.unit == "s" else f"{number(rate.mean)} {rate.unit}"


def _seen(leak: int | None) -> str:
    return "at none of the planted doses" if leak is None else f"from {file_size(leak)} an operation on"


def _percent(part: float) -> str:
    return f"{part:.2%}" if 0 < part < 0.1 or 0.9 < part < 1 else f"{part:.0%}"  # noqa: PLR2004  digits that matter
