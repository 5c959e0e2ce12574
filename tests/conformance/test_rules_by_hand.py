"""The rules on numbers that can be followed by hand, at the very limits where they change their mind."""

import math
import statistics

import pytest
from scipy import stats

from conformance.near_tie import compare_greedy
from conformance.statistics import PAGE_BYTES, Decision, decide_growth, decide_rate, smallest_visible
from conformance.trial.outcome import exit_code

MEETS, VIOLATES, UNDECIDED = Decision
VALUES = [110.0, 111.0, 109.0, 110.5, 110.2, 300.0, 1.0]
MIB = 1 << 20


def rate(values, limit=100.0, *, larger=True, alpha=0.03, looks=(5, 10, 20), max_sd=9.0):
    return decide_rate(values, limit, larger_is_better=larger, alpha=alpha, looks=looks, max_sd=max_sd)


def growth(account, witness=None, *, warm_up=20, blocks=8, max_growth=64 * MIB):
    seen = [1 << 30] * len(account) if witness is None else witness
    return decide_growth(account, seen, warm_up=warm_up, blocks=blocks, max_growth=max_growth)


def blockwise(*medians, warm_up=20):
    """Ten operations a block: half of them far below, so that a block cut one operation off has another median."""
    low = min(medians) - 1000 * MIB
    return [low] * warm_up + [value for median in medians for value in [median] * 5 + [low] * 5]


# --- R1 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [100.0, 110.1, 120.0, 0.5])
@pytest.mark.parametrize(("looks", "used"), [((5, 10, 20), 5), ((3,), 3), ((2, 4, 6, 50), 6), ((7,), 7)])
def test_r1_is_a_t_interval_on_logarithms_with_its_alpha_split_over_the_looks(limit, looks, used):
    logs = [math.log(value) for value in VALUES[:used]]
    error = statistics.stdev(logs) / math.sqrt(used)
    low, high = stats.t.interval(1 - 2 * 0.03 / len(looks), used - 1, statistics.fmean(logs), error)

    result = rate(VALUES, limit, looks=looks)

    assert result.runs == used
    assert result.mean == pytest.approx(statistics.geometric_mean(VALUES[:used]), rel=1e-9)
    assert result.interval == pytest.approx((math.exp(low), math.exp(high)), rel=1e-9)
    assert result.sd == pytest.approx(statistics.stdev(logs), rel=1e-9)
    assert result.detectable == pytest.approx(math.exp((high - low) / 2) - 1, rel=1e-9)
    good = MEETS if math.exp(low) > limit else VIOLATES if math.exp(high) < limit else UNDECIDED
    bad = {MEETS: VIOLATES, VIOLATES: MEETS, UNDECIDED: UNDECIDED}[good]
    assert (result.decision, rate(VALUES, limit, larger=False, looks=looks).decision) == (good, bad)


@pytest.mark.parametrize(
    ("values", "decision", "why"),
    [
        (VALUES, MEETS, "the interval lies on the good side of the limit"),
        ([90.0, 91.0, 89.0, 90.5, 90.2], VIOLATES, "the interval lies on the bad side of the limit"),
        ([99.0, 101.0, 100.0, 99.5, 100.5], UNDECIDED, "the interval contains the limit"),
        ([100.0] * 5, UNDECIDED, "the interval contains the limit"),
        ([110.0] * 4, UNDECIDED, "4 runs; the first look is at 5"),
        ([], UNDECIDED, "0 runs; the first look is at 5"),
    ],
)
def test_r1_says_why(values, decision, why):
    result = rate(values)

    assert (result.decision, result.why) == (decision, why)


def test_r1_decides_at_the_largest_spread_and_not_beyond_it():
    spread = rate(VALUES).sd

    assert rate(VALUES, max_sd=spread).decision is MEETS
    over = rate(VALUES, max_sd=math.nextafter(spread, 0.0))
    assert (over.decision, over.why) == (UNDECIDED, "spread 0.7% between runs exceeds 1%")


def test_r1_before_its_first_look_gives_the_mean_and_no_interval():
    result = rate([4.0, 9.0, 6.0])

    assert result.mean == pytest.approx(6.0)
    assert (result.interval, result.detectable, result.runs) == ((0.0, math.inf), math.inf, 3)
    assert math.isnan(result.sd)


def test_r1_needs_two_values_whatever_was_planned():
    assert rate([110.0], looks=(1, 5)).decision is UNDECIDED
    assert rate([110.0, 111.0], looks=(2,), alpha=0.2).decision is MEETS
    assert rate([110.0, 111.0], looks=()).why == "2 runs; the first look is at 0"


@pytest.mark.parametrize("limit", [0.0, -1.0, -0.5])
def test_r1_has_no_limit_of_nothing_or_less(limit):
    with pytest.raises(ValueError, match="positive and finite"):
        rate(VALUES, limit)


@pytest.mark.parametrize("values", [[0.25, 0.5, 0.125, 0.25, 0.5], [1e-300] * 5, [1e300] * 5])
def test_r1_takes_rates_of_any_size_above_zero(values):
    assert rate(values, 0.01).decision is (VIOLATES if values[0] < 0.01 else MEETS)


@pytest.mark.parametrize(("value", "mean"), [(9e303, 9e303), (1.1e304, math.inf)])
def test_r1_gives_what_a_float_cannot_safely_hold_as_infinite(value, mean):
    assert rate([value]).mean == pytest.approx(mean, rel=1e-9)


# --- R3 ---------------------------------------------------------------------------------------------------

RISING = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("medians", "decision", "up"),
    [
        (RISING, VIOLATES, 7),
        ([1, 2, 3, 4, 5, 6, 7, 7], VIOLATES, 6),
        ([1, 2, 3, 4, 5, 6, 6, 6], MEETS, 5),
        ([1, 1, 2, 3, 4, 5, 6, 7], VIOLATES, 6),
        ([8, 7, 6, 5, 4, 3, 2, 1], MEETS, 0),
        ([5] * 8, MEETS, 0),
    ],
)
def test_r3_finds_a_leak_where_at_most_one_step_of_the_account_fails_to_rise(medians, decision, up):
    result = growth(blockwise(*medians))

    assert (result.decision, result.account_steps, result.witness_steps) == (decision, (up, 7), (0, 7))
    assert (result.account_growth, result.witness_growth) == (medians[-1] - medians[0], 0)


@pytest.mark.parametrize(
    ("step", "stops", "decision"),
    [
        (PAGE_BYTES, 7, VIOLATES),
        (PAGE_BYTES + 1, 7, VIOLATES),
        (PAGE_BYTES - 1, 7, MEETS),
        (PAGE_BYTES, 6, VIOLATES),
        (PAGE_BYTES, 5, MEETS),
    ],
)
def test_r3_counts_whole_pages_of_the_witness(step, stops, decision):
    witness = blockwise(*[(1 << 40) + step * min(block, stops) for block in range(8)])

    result = growth([5] * 100, witness, max_growth=1 << 40)

    assert result.decision is decision
    assert result.witness_steps == (min(stops, 7) if step >= PAGE_BYTES else 0, 7)
    assert result.witness_growth == step * stops


@pytest.mark.parametrize(("grown", "decision"), [(64, MEETS), (65, VIOLATES), (-64, MEETS), (-65, UNDECIDED)])
@pytest.mark.parametrize("on_account", [True, False])
def test_r3_takes_growth_and_shrinking_up_to_the_most_that_is_allowed(grown, decision, on_account):
    moved, still = blockwise(*[1 << 40] * 4, *[(1 << 40) + grown] * 4), [1 << 40] * 100
    account, witness = (moved, still) if on_account else (still, moved)

    result = growth(account, witness, max_growth=64)

    assert result.decision is decision
    assert (result.account_growth, result.witness_growth) == ((grown, 0) if on_account else (0, grown))


@pytest.mark.parametrize(
    ("account", "witness", "why"),
    [
        (blockwise(*RISING), None, "the engine's own account rises block after block, by 7 bytes"),
        (
            [5] * 100,
            blockwise(*[(1 << 40) + PAGE_BYTES * block for block in range(8)]),
            f"the witness rises block after block, by {7 * PAGE_BYTES} bytes",
        ),
        (blockwise(*[0] * 7, 65 * MIB), None, f"{65 * MIB} bytes more at the end than after the warm-up"),
        (blockwise(65 * MIB, *[0] * 7), None, "memory in use shrank: something else was measured"),
        ([5] * 100, None, "no growth that goes on"),
        ([5] * 100, [0] * 100, "the witness saw no memory at all: it is blind"),
        ([5] * 100, [-1] * 100, "the witness saw no memory at all: it is blind"),
        ([5] * 100, [1] * 100, "no growth that goes on"),
    ],
)
def test_r3_says_why(account, witness, why):
    assert growth(account, witness).why == why


def test_r3_does_not_look_at_the_warm_up_nor_at_what_is_left_of_the_last_block():
    wild = list(range(0, 20 * MIB, MIB))
    steady = blockwise(*[7] * 8, warm_up=0)

    result = growth([*wild, *steady, *wild[:7]])

    assert (result.decision, result.account_steps, result.account_growth) == (MEETS, (0, 7), 0)


def test_r3_takes_the_median_of_a_block_whatever_its_extremes_are():
    blocks = [[median + high] * 4 + [median] + [0] * 5 for median, high in zip([50] * 7 + [51], range(8), strict=True)]

    result = growth([0] * 20 + [value * MIB for block in blocks for value in block])

    assert (result.account_growth, result.account_steps) == (MIB, (1, 7))


def test_r3_cuts_into_as_many_blocks_as_are_asked_for():
    result = growth(blockwise(1, 2, 3, 4), blocks=4)

    assert (result.decision, result.account_steps, result.account_growth) == (VIOLATES, (3, 3), 3)
    assert growth(blockwise(1, 2, 3, 3), blocks=4).decision is VIOLATES
    assert growth(blockwise(1, 2, 2, 2), blocks=4).decision is MEETS


@pytest.mark.parametrize(("count", "warm_up", "blocks"), [(36, 20, 8), (16, 0, 8), (8, 0, 4), (300, 284, 8)])
def test_r3_takes_two_values_a_block_and_not_one_less(count, warm_up, blocks):
    assert growth([5] * count, warm_up=warm_up, blocks=blocks).decision is MEETS
    with pytest.raises(ValueError, match=f"{count - 1} values with {warm_up} of warm-up do not make {blocks} blocks"):
        growth([5] * (count - 1), warm_up=warm_up, blocks=blocks)


@pytest.mark.parametrize(("account", "witness"), [(400, 401), (401, 400)])
def test_r3_takes_no_two_series_of_different_lengths(account, witness):
    with pytest.raises(ValueError, match=f"{witness} values"):
        growth([5] * account, [1 << 30] * witness)
    assert growth([5] * 400, [1 << 30] * 400).decision is MEETS


@pytest.mark.parametrize(
    ("operations", "warm_up", "blocks", "nbytes"),
    [(100, 20, 8, 209_716), (120, 20, 8, 174_763), (20, 4, 8, 1_048_576), (84, 20, 4, 131_072), (90, 20, 8, 262_144)],
)
def test_a_leak_is_visible_from_a_page_a_block_on(operations, warm_up, blocks, nbytes):
    assert PAGE_BYTES == 2_097_152
    assert smallest_visible(operations, warm_up, blocks) == nbytes


# --- how they are called ----------------------------------------------------------------------------------


def test_what_is_decided_cannot_be_changed():
    made = [rate(VALUES), growth([5] * 100), compare_greedy([1], [1], [1.0], tie_margin=0.1)]

    for each in made:
        field = each.__struct_fields__[0]
        with pytest.raises(AttributeError):
            setattr(each, field, getattr(each, field))


def test_limits_are_named_where_a_rule_is_called():
    with pytest.raises(TypeError):
        compare_greedy([1], [1], [1.0], 0.1)
    with pytest.raises(TypeError):
        decide_rate([1.0], 1.0, True, 0.01, (5,), 0.1)
    with pytest.raises(TypeError):
        decide_growth([5] * 100, [5] * 100, 20, 8, 1)
    with pytest.raises(TypeError):
        exit_code([], False)
