"""Laying the rows of several trials over one another shows a timed row that was not alone."""

import pytest

from conformance.matrix.schedule import Span, busy_s, disturbed, tenants


def span(row, began, ended, *, alone=False, device="gpu-0", on_device=True):
    return Span("trial", row, device, began, ended, alone, on_device)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([span("a", 0, 9), span("b", 1, 2, device="gpu-1")], []),
        ([span("a", 0, 1), span("timed", 1, 2, alone=True), span("b", 2, 3)], []),
        ([span("a", 0, 9), span("timed", 1, 2, alone=True)], [("timed", "a")]),
        ([span("timed", 0, 9, alone=True), span("b", 1, 2), span("c", 9, 10)], [("timed", "b")]),
        ([span("a", 0, 9), span("b", 1, 2), span("timed", 3, 4, alone=True, device="gpu-1")], [("timed", "a")]),
        ([span("one", 0, 2, alone=True), span("other", 1, 3, alone=True)], [("one", "other")]),
    ],
)
def test_a_timed_row_is_disturbed_by_whatever_ran_beside_it_on_the_host(rows, expected):
    assert [(timed.row, other.row) for timed, other in disturbed(rows)] == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([span("a", 0, 9), span("b", 1, 2, device="gpu-1")], []),
        ([span("a", 0, 9), span("b", 1, 2)], [("a", "b")]),
        ([span("a", 0, 9), span("parse", 1, 2, on_device=False)], []),
        ([span("a", 0, 9, device=""), span("b", 1, 2, device="")], []),
        ([span("a", 0, 1), span("b", 1, 2)], []),
    ],
)
def test_rows_that_share_a_gpu_are_tenants_and_rows_of_the_processor_are_not(rows, expected):
    assert [(one.row, other.row) for one, other in tenants(rows)] == expected


def test_the_host_is_busy_from_the_first_row_to_the_last():
    assert busy_s([]) == 0
    assert busy_s([span("a", 5, 6), span("b", 1, 9), span("c", 2, 3)]) == 8
