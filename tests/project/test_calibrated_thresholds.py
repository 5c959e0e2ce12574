"""The thresholds of timed rows hold what the committed calibrations measured, and the calibrations what was asked.

Where no calibration of an H100 is committed, no threshold may state an effect: nobody has measured it.
"""

import sys
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance" / "calibration"))
import made_pools

from conformance.calibration.pool import read_pool
from conformance.calibration.replaying import GROWTH_ROWS, RATE_ROWS, replay
from conformance.calibration.results import counted, read_calibration
from conformance.thresholds import load_thresholds
from reports.calibration import calibration_page

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "calibration"
COMMITTED = {path.stem: read_calibration(path) for path in sorted(RESULTS.glob("*.json"))}
LIMITS = load_thresholds().rows


def complaints(found):
    """What a calibration lacks of what was asked of it, or where the thresholds say otherwise."""
    told = [] if found.replays >= 3000 else [f"{found.replays} replays"]
    if [(rate.row, rate.name, rate.series) for rate in found.rates] != list(RATE_ROWS):
        told.append("not every timed row")
    if [(growth.row, growth.name) for growth in found.growth] != list(GROWTH_ROWS):
        told.append("not every growth row")
    told += [f"{rate.row}: {rate.processes} processes" for rate in found.rates if rate.processes < 60]
    told += [f"{growth.row}: {growth.series} series" for growth in found.growth if growth.series < 60]
    for rate in found.rates:
        limit = load_thresholds().limit(rate.row, rate.name)
        if (rate.alpha, rate.looks, rate.max_sd) != (limit.alpha, limit.looks, limit.max_sd):
            told.append(f"{rate.row}: the rule's numbers have changed since")
        inside = next(curve for curve in rate.curves if curve.margin == 0.02).cells[0].counts
        told += alarms(rate.row, limit, rate.false_alarm) + alarms(f"{rate.row}, 2 % inside", limit, inside)
    for growth in found.growth:
        limit = load_thresholds().limit(growth.row, growth.name)
        if growth.max_growth != limit.max_growth:
            told.append(f"{growth.row}: the rule's numbers have changed since")
        told += alarms(growth.row, limit, growth.false_alarm)
    return told


def alarms(where, limit, counts):
    """The stated error rate is contradicted where even the lower bound of what was measured lies above it."""
    return [f"{where}: alarms {counts.bounds}, stated {limit.alpha}"] if counts.bounds[0] > limit.alpha else []


def effects(calibrations):
    """By limit, the effect that is seen on the H100; where one limit has several series, in all of them."""
    found = {}
    if "h100" in calibrations:
        for rate in calibrations["h100"].rates:
            found.setdefault((rate.row, rate.name.split("/")[0]), []).append(rate.detects)
        for growth in calibrations["h100"].growth:
            found[growth.row, growth.name] = [growth.detects(accounted=False)]
    return {key: max(each) for key, each in found.items() if None not in each}


@pytest.fixture(scope="module")
def made():
    return replay(made_pools.pool(20), replays=40, seed=0)


def test_every_timed_limit_is_calibrated():
    sampled = {(row, name) for row, limits in LIMITS.items() for name, limit in limits.items() if limit.looks}
    growing = {(row, name) for row, limits in LIMITS.items() for name, limit in limits.items() if limit.max_growth}

    assert {(row, name.split("/")[0]) for row, name, _ in RATE_ROWS} == sampled
    assert set(GROWTH_ROWS) == growing


def test_committed_calibrations_are_what_was_asked_and_what_the_thresholds_say():
    assert {name: complaints(found) for name, found in COMMITTED.items()} == {name: [] for name in COMMITTED}
    assert {name: found.gpu for name, found in COMMITTED.items()} == {name: name == "h100" for name in COMMITTED}


def test_committed_calibrations_have_their_pages_and_pools():
    for name, found in COMMITTED.items():
        assert (RESULTS / f"{name}.html").read_text() == calibration_page(found)
        pool = read_pool(sorted(RESULTS.glob(f"{name}-pool-*.jsonl")))
        assert len(pool.timed) == found.rates[0].processes


def test_the_thresholds_state_the_effect_that_the_h100_shows_and_none_that_nobody_measured():
    stated = {(row, name): limit.detects for row, limits in LIMITS.items() for name, limit in limits.items()}

    assert {key: effect for key, effect in stated.items() if effect is not None} == effects(COMMITTED)


def test_the_page_of_results_says_what_is_missing():
    said = (RESULTS / "README.md").read_text()

    assert ("None is committed yet" in said) is not bool(COMMITTED)


def test_a_small_calibration_is_complained_of(made):
    told = complaints(made)

    assert "40 replays" in told
    assert "F-PERF-081: 20 processes" in told
    assert "F-PERF-087: 12 series" in told
    assert len(told) >= 1 + len(RATE_ROWS) + len(GROWTH_ROWS)


def test_alarms_above_the_stated_rate_and_other_numbers_are_complained_of(made):
    [rate, *others] = made.rates
    noisy = [
        msgspec.structs.replace(
            curve, cells=(msgspec.structs.replace(curve.cells[0], counts=counted(10, 0, 30)), *curve.cells[1:])
        )
        for curve in rate.curves
    ]
    changed = msgspec.structs.replace(rate, curves=tuple(noisy), alpha=0.5)
    told = complaints(msgspec.structs.replace(made, rates=(changed, *others[1:])))

    assert "not every timed row" in told
    assert f"{rate.row}: the rule's numbers have changed since" in told
    assert [line for line in told if line.startswith((f"{rate.row}: alarms", f"{rate.row}, 2 % inside: alarms"))]


def test_an_effect_is_what_all_series_of_a_limit_show(made):
    shown = effects({"h100": made})

    assert shown["F-PERF-087", "generations"] == 4 << 20
    assert shown["F-PERF-082", "first_token"] == max(r.detects for r in made.rates if r.row == "F-PERF-082")
    assert effects({"cpu": made}) == {}
