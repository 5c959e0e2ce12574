"""The rules' error rates, measured by simulation: what each verdict claims about itself is so. All seeds are fixed."""

import math

import numpy as np
import pytest

from conformance.statistics import PAGE_BYTES, Decision, decide_growth, decide_rate, smallest_visible

LOOKS = (5, 10, 20)
KIB, MIB = 1024, 1024 * 1024
MEETS, VIOLATES, UNDECIDED = Decision


def decide(values, *, larger=True, alpha=0.01, max_sd=0.5):
    return decide_rate(list(values), 100.0, larger_is_better=larger, alpha=alpha, looks=LOOKS, max_sd=max_sd)


def sequential(ratio, sd, trials, *, alpha=0.01, larger=True, seed=1):
    """Shares of MEETS and VIOLATES, and mean runs, where sampling stops at the first look that decides."""
    source = np.random.default_rng(seed)
    samples = 100.0 * ratio * np.exp(sd * source.standard_normal((trials, LOOKS[-1])))
    tally, runs = dict.fromkeys(Decision, 0), 0
    for values in samples:
        for look in LOOKS:
            result = decide(values[:look], larger=larger, alpha=alpha)
            if result.decision is not UNDECIDED:
                break
        tally[result.decision] += 1
        runs += look
    return tally[MEETS] / trials, tally[VIOLATES] / trials, runs / trials


def test_r1_errs_at_the_limit_at_most_by_its_alpha_to_either_side():
    trials, alpha = 6000, 0.05

    met, violated, _ = sequential(1.0, 0.03, trials, alpha=alpha)

    slack = 3 * math.sqrt(alpha * (1 - alpha) / trials)
    assert alpha / 3 < met < alpha + slack
    assert alpha / 3 < violated < alpha + slack


@pytest.mark.parametrize(
    ("ratio", "sd", "meets", "violates", "runs"),
    [
        (0.98, 0.01, 0.0, 1.0, 8),
        (0.99, 0.01, 0.0, 0.915, 15),
        (1.01, 0.01, 0.907, 0.0, 15),
        (1.05, 0.01, 1.0, 0.0, 5),
        (0.98, 0.03, 0.0, 0.534, 18),
        (1.02, 0.03, 0.506, 0.0, 18),
        (1.05, 0.03, 1.0, 0.0, 9.5),
        (0.95, 0.06, 0.0, 0.784, 17),
        (1.10, 0.06, 1.0, 0.0, 10),
    ],
)
def test_r1_has_the_power_it_states(ratio, sd, meets, violates, runs):
    met, violated, used = sequential(ratio, sd, 500)

    assert met == pytest.approx(meets, abs=0.07)
    assert violated == pytest.approx(violates, abs=0.07)
    assert used == pytest.approx(runs, abs=1.0)


def test_r1_reads_smaller_is_better_the_other_way_round():
    met, violated, _ = sequential(0.95, 0.01, 200, larger=False)

    assert (met, violated) == (1.0, 0.0)


def test_r1_half_of_the_trials_at_the_detectable_distance_decide():
    source = np.random.default_rng(5)
    detectable = np.median([decide(100 * np.exp(0.03 * source.standard_normal(20))).detectable for _ in range(200)])

    shares = [
        decide(100 * (1 + detectable) * np.exp(0.03 * source.standard_normal(20))).decision is MEETS for _ in range(600)
    ]

    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)


def test_r1_does_not_decide_on_a_wide_spread_however_far_the_mean():
    result = decide([150, 1500, 200, 2000, 180], max_sd=0.1)

    assert (result.decision, result.runs) == (UNDECIDED, 5)
    assert "exceeds 10%" in result.why


@pytest.mark.parametrize(("count", "used"), [(0, 0), (1, 1), (4, 4), (5, 5), (9, 5), (10, 10), (19, 10), (30, 20)])
def test_r1_looks_only_where_it_was_planned(count, used):
    result = decide([120.0 + i % 2 for i in range(count)])

    assert result.runs == used
    assert (result.decision is UNDECIDED) == (count < 5)


def test_r1_without_spread_decides_by_the_mean_and_not_at_the_limit_itself():
    assert decide([101.0] * 5).decision is MEETS
    assert decide([99.0] * 5).decision is VIOLATES
    assert decide([100.0] * 20).decision is UNDECIDED


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_r1_refuses_what_is_no_rate(bad):
    with pytest.raises(ValueError, match="positive and finite"):
        decide([100.0, bad, 100.0, 100.0, 100.0])
    with pytest.raises(ValueError, match="positive and finite"):
        decide_rate([1.0] * 5, 0.0, larger_is_better=True, alpha=0.01, looks=LOOKS, max_sd=1)


def test_r1_survives_absurd_numbers():
    result = decide([1e300, 1e-300, 1e300, 1e-300, 1e300])

    assert result.decision is UNDECIDED
    assert result.interval[1] == math.inf


def stored_series(leak, every=1, *, tenants=0, count=120, seed=0):
    """Bytes after each generation on the engine's account and in whole pages on the witness.

    The engine warms up by up to 64 MiB within 10 generations; 1 % of them grow once by 2 to 16 MiB for good on the
    witness; 3 % are off by a page for a moment. `tenants` other processes' bytes come and go on the witness.
    """
    source = np.random.default_rng(seed)
    steps = np.arange(count)
    warm = source.uniform(0, 64 * MIB) * np.minimum(steps, 10) / 10
    account = 1 << 30
    account = account + warm.astype(np.int64) + leak * (steps // every)
    once = np.cumsum((source.random(count) < 0.01) * source.integers(2 * MIB, 16 * MIB, count))
    held = account + once + tenants * (source.random(count) < 0.1)
    pages = held // PAGE_BYTES + (source.random(count) < 0.03) * source.integers(-1, 2, count)
    return account.tolist(), (pages * PAGE_BYTES).tolist()


def leaks(leak, every=1, *, hidden=False, trials=150, **more):
    """Share of VIOLATES over seeds; with `hidden` the account tells nothing."""
    found = 0
    for seed in range(trials):
        account, witness = stored_series(leak, every, seed=seed, **more)
        told = [1 << 30] * len(account) if hidden else account
        decision = decide_growth(told, witness, warm_up=20, max_growth=64 * MIB).decision
        found += decision is VIOLATES
    return found / trials


def test_r3_never_finds_a_leak_where_there_is_none():
    assert leaks(0, trials=500) == 0


@pytest.mark.parametrize("leak", [1 * KIB, 64 * KIB, 256 * KIB, 1 * MIB])
def test_r3_always_finds_a_steady_leak_on_the_account(leak):
    assert leaks(leak) == 1


def test_r3_finds_bursts_that_come_at_least_once_a_block():
    assert leaks(4 * MIB, every=10) == 1


def test_r3_is_blind_to_bursts_rarer_than_a_block_as_it_states():
    assert leaks(4 * MIB, every=25) < 0.05


def test_r3_finds_by_the_witness_alone_what_fills_a_page_in_each_block_and_nothing_smaller():
    assert leaks(256 * KIB, hidden=True) > 0.99
    assert leaks(1 * KIB, hidden=True) == 0


def test_r3_finds_total_growth_that_comes_at_once():
    account, witness = [1 << 30] * 120, [1 << 30] * 70 + [(1 << 30) + 66 * MIB] * 50

    result = decide_growth(account, witness, warm_up=20, max_growth=64 * MIB)

    assert result.decision is VIOLATES
    assert result.witness_growth == 66 * MIB
    assert "more at the end" in result.why


def test_r3_does_not_clear_an_engine_whose_memory_shrinks():
    witness = [(1 << 30) - i * MIB for i in range(120)]

    assert decide_growth([1 << 30] * 120, witness, warm_up=20, max_growth=64 * MIB).decision is UNDECIDED


@pytest.mark.parametrize(("account", "witness"), [(120, 119), (35, 35), (0, 0), (20, 20)])
def test_r3_refuses_series_that_are_too_short_or_unlike(account, witness):
    with pytest.raises(ValueError, match="do not make 8 blocks"):
        decide_growth([1] * account, [1] * witness, warm_up=20, max_growth=1)


@pytest.mark.parametrize(("operations", "warm_up"), [(120, 20), (20, 4), (44, 12)])
def test_a_leak_counts_as_visible_exactly_where_every_block_of_pages_rises(operations, warm_up):
    """On a witness that counts in pages; a leak of half that is seen in every other block at most."""
    visible = smallest_visible(operations, warm_up)

    def seen(leak):
        witness = [(1 << 30) + leak * i // PAGE_BYTES * PAGE_BYTES for i in range(operations)]
        return decide_growth([5] * operations, witness, warm_up=warm_up, max_growth=1 << 40).decision

    assert seen(visible) is Decision.VIOLATES
    assert seen(visible // 2) is Decision.MEETS
    assert visible * ((operations - warm_up) // 8) >= PAGE_BYTES > (visible - 1) * ((operations - warm_up) // 8)
