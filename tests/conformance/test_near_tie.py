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
