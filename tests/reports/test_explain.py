"""Observations in readable form: what differs, where, and by how much."""

import sample_records as samples
from hypothesis import given
from hypothesis import strategies as st

from conformance.observations import Equal, Failed, LogitsDistance, Missing
from conformance.record import Finding, RowResult
from conformance.verdicts import Rehearsed, Verdict
from reports.explain import (
    addition,
    brief,
    decisive,
    differences,
    explain,
    first_difference,
    ids_around,
    points,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def typed(value):
    if isinstance(value, dict):
        return {key: typed(member) for key, member in value.items()}
    if isinstance(value, list):
        return [typed(member) for member in value]
    return type(value).__name__, value


@given(JSON, JSON)
def test_values_differ_somewhere_exactly_when_they_are_different(expected, observed):
    assert bool(list(differences(expected, observed))) == (typed(expected) != typed(observed))


def test_a_bottomless_answer_is_compared_all_the_same():
    deep, other = [], [1]
    for _ in range(400):
        deep, other = [deep], [other]

    assert len(list(differences(deep, other))) == 1
    assert list(differences(deep, deep)) == []


def found(expected, observed):
    return [(gap.where, gap.expected, gap.observed) for gap in differences(expected, observed)]


def test_a_difference_names_its_place():
    assert found({"a": {"shape": [3, 4]}}, {"a": {"shape": [3, 5, 1]}}) == [
        ("a.shape[1]", "4", "5"),
        ("a.shape[2]", "absent", "1"),
    ]
    assert found({"a": 1}, {"b": 1}) == [("a", "1", "absent"), ("b", "absent", "1")]


def test_numbers_of_another_type_are_different():
    assert found(1, 1.0) == [("", "1", "1.0")]
    assert found(1, True) == [("", "1", "true")]
    assert found(None, False) == [("", "null", "false")]


def test_a_long_text_is_shown_from_shortly_before_the_first_difference():
    (gap,) = differences("x" * 100 + "yes", "x" * 100 + "no")

    assert gap.where == "from character 76"
    assert gap.observed.endswith('xxno"')


def test_equal_values_agree():
    told = explain(Equal(name="a", expected=[1, 2], observed=[1, 2]))

    assert told.agrees
    assert brief(Equal(name="a", expected=[1, 2], observed=[1, 2])) == "as expected: [1,2]"


def test_many_differences_are_counted_not_dropped_in_silence():
    told = explain(Equal(name="a", expected=list(range(50)), observed=list(range(1, 51))))

    assert len(told.differences) + told.left_out == 50


def test_tokens_show_the_first_difference_and_the_margin():
    told = explain(samples.tokens(70))

    assert ("first difference", "step 70") in told.facts
    assert ("reference's margin there", "1.7 logits") in told.facts
    assert told.agrees is False


def test_a_sequence_that_ends_early_differs_at_its_end():
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([], []) is None
    assert ids_around([], 0) == "no ids"


def test_growth_shows_both_witnesses_after_the_warm_up():
    facts = dict(explain(samples.growth(0, one_off=0)).facts)

    assert facts["NVML"].endswith("(±0 B after warm-up)")


def test_cases_show_every_class_that_was_demanded_ran_or_failed():
    told = explain(samples.cases(failures=True))

    assert sum(count.failed for count in told.classes) == 1
    assert "wrong_accept in not starting at 0" in brief(samples.cases(failures=True), 400)


def test_logits_name_the_distance():
    told = explain(LogitsDistance(name="l", positions=1, max_abs=0.5, min_cosine=0.9, argmax_expected=[1],
                                  argmax_observed=[2], margins=[1.0]))  # fmt: skip

    assert ("largest difference", "0.5") in told.facts
    assert told.agrees is False


def test_findings_meet_their_observations_by_name_even_if_a_name_occurs_twice():
    twice = [Failed(name="a", how="crash", detail="1"), Failed(name="a", how="hang", detail="2")]
    findings = [Finding("a", Verdict.FALSIFIED, "r"), Finding("contract", Verdict.ERROR, "c")]

    paired = points(RowResult("x", Verdict.ERROR, observations=twice, findings=findings))

    assert [(p.name, getattr(p.observation, "how", None), p.finding is not None) for p in paired] == [
        ("a", "crash", True),
        ("contract", None, True),
        ("a", "hang", False),
    ]
    assert paired[2].verdict is Verdict.UNTESTED


def test_the_decisive_point_of_a_failed_rehearsal_is_the_failure():
    observations = [Missing(name="gpu", reason="no CUDA device"), Failed(name="b", how="crash", detail="x")]
    findings = [Finding("gpu", Verdict.UNTESTED, ""), Finding("b", Verdict.FALSIFIED, "")]
    row = RowResult("x", Verdict.UNTESTED, rehearsed=Rehearsed.FAILED, observations=observations, findings=findings)

    assert decisive(row).name == "b"
    assert decisive(RowResult("x", Verdict.UNTESTED)) is None


def test_nothing_is_told_twice():
    crash = Failed(name="a", how="SIGBUS", detail="while  reading")

    assert addition(crash, "a: SIGBUS: while reading") == ""
    assert addition(crash, "something else") == "SIGBUS: while reading"
