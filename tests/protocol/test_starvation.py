"""Seconds withheld from an engine: by others, never by more threads of its own than there are processors."""

import pytest

from conformance.protocol.starvation import Starvation, starved_s


@pytest.mark.parametrize(
    ("elapsed", "ran", "waited", "processors", "expected"),
    [
        (10, 0, 0, 2, 0),  # asleep
        (10, 10, 0, 2, 0),  # one thread, never kept waiting
        (10, 2, 8, 2, 8),  # one thread, given a fifth
        (10, 0.5, 0.5, 2, 0.5),  # mostly asleep
        (10, 20, 140, 2, 0),  # sixteen threads of its own on two processors
        (10, 10, 150, 2, 5),  # the same, with others on half of them
        (10, 0, 10, 1, 10),  # nothing at all
        (0, 0, 0, 1, 0),
    ],
)
def test_what_others_withheld_is_counted_once_whatever_the_number_of_threads(
    elapsed, ran, waited, processors, expected
):
    assert starved_s(elapsed, ran, waited, processors) == pytest.approx(expected)


def test_a_process_that_is_gone_was_kept_from_nothing():
    watched = Starvation(lambda: [2**22 + 1])
    assert watched.look() == 0
