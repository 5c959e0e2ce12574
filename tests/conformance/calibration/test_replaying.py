"""The replay on pools with known rates gives those rates."""

import made_pools
import msgspec
import numpy as np
import pytest

from conformance.calibration.pool import Pool, PoolTooSmall
from conformance.calibration.replaying import (
    RateRow,
    _recomposed,
    _resampled,
    calibrated_growth,
    calibrated_rate,
    replay,
    series_of,
)
from conformance.thresholds import load_thresholds

LOAD = RateRow("F-PERF-081", "load", "load")
LIMIT = load_thresholds().limit("F-PERF-081", "load")
RATE = RateRow("F-PERF-083", "rate", "decode")


def rate_of(spread, *, which=LOAD, replays=300, seed=0, processes=60, **limit):
    pool = Pool((made_pools.session(),), made_pools.timed(processes, spread, seed), ())
    changed = msgspec.structs.replace(load_thresholds().limit(which.row, which.name), **limit)
    return calibrated_rate(
        which, changed, series_of(pool, which.series), made_pools.SLOWDOWNS, replays=replays, seed=seed
    )


def curve(rate, margin):
    return {cell.slowdown: cell.counts for c in rate.curves if c.margin == margin for cell in c.cells}


def test_the_error_rate_on_the_limit_is_the_one_that_was_asked_for():
    """With normal noise the rule's rate is exact up to the looks; ten times the rate is seen as ten times."""
    loose = rate_of(0.02, alpha=0.3, looks=(20,), replays=2000).false_alarm

    assert loose.bounds[0] < 0.3 < loose.bounds[1] + 0.05
    assert loose.corroborated / loose.replays == pytest.approx(0.3, abs=0.05)
    strict = rate_of(0.02, alpha=0.03, looks=(20,), replays=2000).false_alarm
    assert 0.01 < strict.share < 0.06


@pytest.mark.parametrize("which", [LOAD, RATE], ids=["smaller is better", "larger is better"])
def test_planted_slowdowns_are_detected_by_their_size(which):
    exact = curve(rate_of(0.01, which=which), None)

    assert exact[0.0].falsified <= 4
    assert exact[0.02].falsified > 285
    assert exact[0.05].falsified == exact[0.1].falsified == 300
    assert exact[0.1].mean_runs == 5
    assert all(counts.corroborated == 0 for slowdown, counts in exact.items() if slowdown >= 0.02)


@pytest.mark.parametrize("which", [LOAD, RATE], ids=["smaller is better", "larger is better"])
def test_a_limit_with_room_clears_the_healthy_engine_and_the_small_doses(which):
    roomy = curve(rate_of(0.01, which=which), 0.10)

    assert roomy[0.0].corroborated == roomy[0.01].corroborated == 300
    assert roomy[0.1].falsified < 60


def test_a_limit_beyond_is_crossed_only_by_doses_beyond():
    beyond = curve(rate_of(0.01), 0.05)

    assert beyond[0.02].falsified == 0
    assert beyond[0.1].falsified == 300


@pytest.mark.parametrize("which", [LOAD, RATE], ids=["smaller is better", "larger is better"])
def test_the_limit_comes_from_one_half_and_the_values_from_the_other(which):
    """Of four values that are powers of four every pair has another median, so the half is known from the limit."""
    healthy = np.array([4.0, 16.0, 64.0, 256.0])
    limit = load_thresholds().limit(which.row, which.name)
    bounds, samples = _resampled(healthy, healthy, limit, 0.25, 200, np.random.default_rng(0))
    medians = bounds / 1.25 if which is LOAD else bounds * 1.25
    pairs = {(a + b) / 2: {a, b} for a in healthy for b in healthy if a < b}

    assert set(medians) == set(pairs)
    for median, values in zip(medians, samples, strict=True):
        assert pairs[median].isdisjoint(values)
        assert len(values) == 20


def test_the_exact_limit_is_the_geometric_mean_of_all_values():
    healthy = np.array([1.0, 100.0])
    bounds, samples = _resampled(healthy, 2 * healthy, LIMIT, None, 50, np.random.default_rng(0))

    assert bounds == pytest.approx(10.0)
    assert set(samples.ravel()) == {2.0, 200.0}


def test_a_spread_beyond_what_the_rule_allows_decides_nothing():
    wild = rate_of(0.3, replays=100)

    assert wild.detects is None
    assert all(cell.counts.inconclusive > 80 for cell in wild.on_limit.cells)


def test_what_is_seen_is_the_smallest_dose_seen_95_times_in_100():
    assert rate_of(0.005).detects == 0.01
    assert rate_of(0.02).detects == 0.05


def test_pairs_are_ratios_to_the_next_healthy_process():
    pool = Pool((made_pools.session(),), made_pools.timed(5, 0.01), ())
    decode, pairs = series_of(pool, "decode"), series_of(pool, "pairs")

    assert pairs[0] == pytest.approx(decode[0] / np.array([*decode[0][1:], decode[0][0]]))
    assert pairs[4].mean() == pytest.approx(1 / 1.1, rel=0.02)


def test_the_same_seed_gives_the_same_result_and_rows_of_one_series_share_it():
    pool = msgspec.structs.replace(made_pools.pool(20), grown=())

    once, again = (replay(pool, replays=20, seed=3) for _ in range(2))
    by_row = {(rate.row, rate.name): rate.curves for rate in once.rates}

    assert once == again
    assert by_row["F-PERF-083", "rate"] == by_row["F-PERF-089", "ratio_to_cpu"]
    assert by_row["F-PERF-083", "rate"] != by_row["F-PERF-090", "ratio_to_peer"]
    assert len(by_row) == 9


GROWTH = load_thresholds().limit("F-PERF-087", "generations")


def growth_of(*series, replays=100):
    return calibrated_growth(
        "F-PERF-087", "generations", GROWTH, [s for each in series for s in each], replays=replays, seed=0
    )


def many(leak, accounted, **how):
    return made_pools.series("F-PERF-087", leak, accounted, operations=120, warm_up=20, **how)


def test_planted_leaks_are_seen_by_the_instrument_that_can():
    growth = growth_of(many(0, False), many(1024, True), many(1024, False), many(4 << 20, False))

    assert growth.false_alarm.falsified == 0
    assert growth.detects(accounted=True) == 1024
    assert growth.detects(accounted=False) == 4 << 20
    assert growth.series == 12


def test_noise_of_the_witness_alarms_only_at_limits_below_it():
    growth = growth_of(many(0, False, noise_seed=1))
    at = {cell.max_growth: cell.counts.falsified for cell in growth.cells}

    assert at[GROWTH.max_growth] == 0
    assert at[0] > 5
    assert at[16 << 20] == 0


def test_a_leak_survives_being_cut_into_blocks_and_put_together_again():
    """Every resample of a steady leak is the same steady leak."""
    assert growth_of(many(0, False), many(4 << 20, True)).detects(accounted=True) == 4 << 20


def test_a_resample_takes_the_warm_up_of_one_and_each_block_of_another_above_its_own_first():
    levels = np.array([[10, 10, *range(100, 116)], [20, 20, *range(500, 516)]])
    compose = _recomposed(levels, warm_up=2)

    same = compose(np.array([1, *[1] * 8]))
    mixed = compose(np.array([0, *[1] * 8]))

    assert same == levels[1].tolist()
    assert mixed == levels[0].tolist()


def test_too_small_a_pool_is_no_calibration():
    with pytest.raises(PoolTooSmall, match="0 processes"):
        replay(Pool((), (), ()), replays=10, seed=0)
    with pytest.raises(PoolTooSmall, match="9 processes with timed values"):
        replay(made_pools.pool(9), replays=10, seed=0)
    with pytest.raises(PoolTooSmall, match="leaking 1024"):
        growth_of(many(0, False), many(1024, True, count=3))
    with pytest.raises(PoolTooSmall, match="no leak"):
        growth_of(many(1024, True))
