"""R6: identical, a near-tie that re-anchoring mends, or diverged."""

import math

import pytest

from conformance.near_tie import compare_greedy
from conformance.observations import Agreement

WIDE, NARROW = 5.0, 0.001


def compare(expected, observed, margins=None, **more):
    return compare_greedy(expected, observed, margins or [WIDE] * len(expected), tie_margin=0.002, **more)


def test_equal_ids_are_identical():
    assert compare([1, 2, 3], [1, 2, 3]) == (result := compare([1, 2, 3], [1, 2, 3]))
    assert (result.agreement, result.step) == (Agreement.IDENTICAL, None)


@pytest.mark.parametrize(
    ("observed", "step", "said"),
    [
        ([1, 9, 3], 1, "expected 2, observed 9, reference margin 5"),
        ([1, 2], 2, "expected 3, observed the end"),
        ([1, 2, 3, 4], 3, "expected the end, observed 4"),
        ([], 0, "expected 1, observed the end"),
    ],
)
def test_a_difference_where_the_reference_is_sure_diverges(observed, step, said):
    result = compare([1, 2, 3], observed, reanchored=[2, 3])

    assert (result.agreement, result.step) == (Agreement.DIVERGED, step)
    assert said in result.why


@pytest.mark.parametrize(
    ("reanchored", "agreement"),
    [
        ([3], Agreement.TIE),
        ([4], Agreement.DIVERGED),
        ([], Agreement.DIVERGED),
        ([3, 3], Agreement.DIVERGED),
        (None, Agreement.DIVERGED),
    ],
)
def test_a_near_tie_counts_only_if_the_rest_is_exact_after_re_anchoring(reanchored, agreement):
    assert compare([1, 2, 3], [1, 9, 9], [WIDE, NARROW, WIDE], reanchored=reanchored).agreement is agreement


def test_a_near_tie_at_the_last_step_has_nothing_left_to_mend():
    assert compare([1, 2], [1, 9], [WIDE, NARROW], reanchored=[]).agreement is Agreement.TIE


def test_a_margin_that_is_no_number_excuses_nothing():
    assert compare([1, 2], [1, 9], [WIDE, math.nan], reanchored=[]).agreement is Agreement.DIVERGED


def test_one_margin_for_each_id():
    with pytest.raises(ValueError, match="1 margins for 2 golden ids"):
        compare([1, 2], [1, 2], [WIDE])


@pytest.mark.parametrize("got", [0, 9_999])
def test_a_smaller_and_a_larger_id_both_differ(got):
    assert compare_greedy([5, 6], [5, got], [9.0, 9.0], tie_margin=0.1).agreement is Agreement.DIVERGED


def test_a_margin_of_exactly_the_limit_is_a_near_tie():
    tied = compare_greedy([1, 2], [1, 3], [9.0, 0.5], tie_margin=0.5, reanchored=[])

    assert tied.agreement is Agreement.TIE


@pytest.mark.parametrize("margins", [[], [1.0], [1.0] * 3])
def test_there_is_one_margin_for_each_golden_id(margins):
    with pytest.raises(ValueError, match=f"{len(margins)} margins for 2 golden ids"):
        compare_greedy([1, 2], [1, 2], margins, tie_margin=0.1)


def test_long_sequences_are_compared_to_their_end():
    expected = list(range(1000, 1600))
    margins = [9.0] * 600
    tied = [9.0] * 400 + [0.0] + [9.0] * 199
    other = [*expected[:400], 7, *expected[401:]]

    same = compare_greedy(expected, list(range(1000, 1600)), margins, tie_margin=0.1)
    longer = compare_greedy(expected, [*expected, 1], margins, tie_margin=0.1)
    shorter = compare_greedy(expected, expected[:500], margins, tie_margin=0.1)
    mended = compare_greedy(expected, other, tied, tie_margin=0.1, reanchored=expected[401:])

    assert (same.agreement, same.step, same.why) == (Agreement.IDENTICAL, None, "600 ids identical")
    assert (longer.step, longer.why) == (600, "step 600 of 600: expected the end, observed 1")
    assert shorter.why == "step 500 of 600: expected 1500, observed the end, reference margin 9"
    assert (mended.agreement, mended.step) == (Agreement.TIE, 400)
