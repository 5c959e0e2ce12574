"""Every class against the two oracles: the written format's demand and the official library."""

from collections import Counter

import pytest

from conformance.corpus.safetensors.classes import WEIGHT_DTYPES, RandomSource, sha256
from conformance.corpus.safetensors.malformed import MALFORMED
from conformance.corpus.safetensors.oracle import first_difference, official
from conformance.corpus.safetensors.registry import BY_NAME, CLASSES, differences, of_row
from conformance.corpus.safetensors.rules import Demand
from conformance.corpus.safetensors.valid import VALID

EXAMPLES = 45
PARSE_ROWS = [f"F-PARSE-{number:03d}" for number in range(36, 46)]


def test_there_are_enough_classes_and_names_are_unique():
    rejects = [found for found in MALFORMED if found.demand is Demand.REJECT]
    assert len(rejects) >= 60
    assert len(VALID) >= 25
    assert len(BY_NAME) == len(CLASSES)
    builders = Counter(found.build for found in CLASSES)
    assert max(builders.values()) == 1
    assert all(found.summary.endswith(".") for found in CLASSES)


@pytest.mark.parametrize("row", PARSE_ROWS)
def test_each_parse_row_has_classes(row):
    assert of_row(row)


@pytest.mark.parametrize("row", [row for row in PARSE_ROWS if int(row[-3:]) >= 40])
def test_each_rejecting_row_has_classes_that_reject(row):
    assert any(found.demand is Demand.REJECT for found in of_row(row))


@pytest.fixture(scope="module")
def examples():
    return {
        found.name: [found.build(RandomSource(f"{found.name}/{at}")) for at in range(EXAMPLES)] for found in CLASSES
    }


@pytest.mark.parametrize("name", BY_NAME)
def test_class_agrees_with_the_official_library(name, examples):
    found = BY_NAME[name]
    for case in examples[name]:
        answer = official(case.data)
        assert answer.accepted == found.official_accepts, answer.refusal
        if answer.accepted and case.readings:
            ways = [first_difference(reading, answer.contents) for reading in case.readings]
            assert not all(ways), ways


@pytest.mark.parametrize("name", BY_NAME)
def test_control_loads_and_differs_and_needs_only_weight_dtypes(name, examples):
    for case in examples[name]:
        answer = official(case.control)
        assert answer.accepted, answer.refusal
        assert first_difference(case.control_contents, answer.contents) == ""
        assert case.data != case.control
        if name != "shapes.half_filled_byte":
            assert {t.dtype for t in case.control_contents.tensors.values()} <= set(WEIGHT_DTYPES)


@pytest.mark.parametrize("name", BY_NAME)
def test_examples_are_distinct(name, examples):
    assert len({sha256(case.data) for case in examples[name]}) >= 30


def test_same_seed_builds_the_same_bytes():
    for found in CLASSES:
        first, second = (found.build(RandomSource("again")) for _ in range(2))
        assert first == second


def test_readings_are_given_exactly_where_acceptance_can_be_right(examples):
    for found in CLASSES:
        for case in examples[found.name]:
            if found.demand is Demand.REJECT:
                assert case.readings is None
            if found.demand is Demand.ACCEPT:
                assert len(case.readings) == 1


def test_known_departures_of_the_official_library_are_listed():
    wrong = {found.name for found in differences() if found.demand is not Demand.EITHER}
    assert wrong == {"entries.dtype_as_object", "entries.value_as_list"}
    assert all(found.note for found in differences() if found.demand is Demand.REJECT)
    open_ones = {found.name for found in differences() if found.demand is Demand.EITHER}
    assert {"encoding.leading_space", "entries.name_twice", "metadata.null"} <= open_ones
