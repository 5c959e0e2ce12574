"""The judge exactly at its limits, on what was read back from a file, and in the words that it gives as reasons."""

import math

import msgspec
import pytest

from conformance.catalogue import NO_DEVICE, Row
from conformance.judge import Situation, judge
from conformance.observations import (
    CaseFailure,
    Cases,
    Equal,
    Growth,
    LogitsDistance,
    Measured,
    Missing,
    Observation,
    Sample,
    Tokens,
    Undecided,
)
from conformance.thresholds import Limit, Thresholds
from conformance.verdicts import Rehearsed, Verdict

ROW = Row(id="F-MEM-029", section="mem", test="t", criterion="c = FAIL", severity="FAIL", observes=("seen",))
SOFT = msgspec.structs.replace(ROW, severity="WARNING")
NEEDY = msgspec.structs.replace(ROW, needs=("cuda",), observes=("seen", "nvml"))
NO_NVML = Missing(name="nvml", reason=NO_DEVICE)
ON_GPU = Situation(gpu=True, is_reference=True)
ON_CPU = Situation(gpu=False, is_reference=True)
CORROBORATED, FALSIFIED, WARNING, INCONCLUSIVE, UNTESTED, ERROR = Verdict
SAME = Equal(name="seen", expected=1, observed=1)
DIFFERENT = Equal(name="seen", expected=1, observed=2)


def judged(*observations, row=ROW, situation=ON_GPU, **limit):
    return judge(row, observations, Thresholds({ROW.id: {"seen": Limit(reason="test", **limit)}}, ""), situation)


def stored(observations):
    """As they come back from a record: equal to what was observed, and no object of it."""
    return msgspec.json.decode(msgspec.json.encode(observations), type=list[Observation])


def logits(**fields):
    given = {"positions": 2, "max_abs": 1e-4, "min_cosine": 0.99999, "argmax_expected": [3, 4]}
    return LogitsDistance(name="seen", **(given | {"argmax_observed": [3, 4], "margins": [5.0, 5.0]} | fields))


LOGITS = {"max_abs": 1e-3, "min_cosine": 0.999, "tie_margin": 0.01}


# --- numbers at their limit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "end", "value", "verdict"),
    [
        (">", 4.0, 5.1, CORROBORATED),
        (">", 4.0, 5.0, INCONCLUSIVE),
        (">", 4.0, 4.5, INCONCLUSIVE),
        (">", 4.0, 4.0, INCONCLUSIVE),
        (">", 4.0, 3.9, FALSIFIED),
        ("<", 6.0, 4.9, CORROBORATED),
        ("<", 6.0, 5.0, INCONCLUSIVE),
        ("<", 6.0, 6.0, INCONCLUSIVE),
        ("<", 6.0, 6.1, FALSIFIED),
        ("<", 6.0, math.nan, FALSIFIED),
        ("<", None, 5.0, FALSIFIED),
    ],
)
def test_a_number_is_undecided_from_its_limit_to_the_end_of_the_zone_and_no_further(relation, end, value, verdict):
    observation = Measured(name="seen", value=value, unit="s")

    assert judged(observation, relation=relation, limit=5.0, undecided_to=end).verdict is verdict


@pytest.mark.parametrize(("value", "verdict"), [(4.0, CORROBORATED), (9.0, INCONCLUSIVE)])
def test_a_precondition_that_does_not_hold_decides_nothing(value, verdict):
    observation = Measured(name="seen", value=value, unit="s")

    assert judged(observation, relation="<", limit=5.0, otherwise="inconclusive").verdict is verdict


@pytest.mark.parametrize(
    ("relation", "verdict"),
    [("<", CORROBORATED), ("<=", CORROBORATED), (">", FALSIFIED), (">=", FALSIFIED), ("==", ERROR)],
)
def test_a_sample_lies_on_a_side_of_its_limit_and_is_never_equal_to_it(relation, verdict):
    observation = Sample(name="seen", values=[1.0, 1.1, 1.05, 1.02, 1.01], unit="s")
    limits = {"limit": 2.0, "alpha": 0.01, "max_sd": 0.1, "looks": (5,)}

    assert judged(observation, relation=relation, **limits).verdict is verdict


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"max_abs": 1e-3, "min_cosine": 0.999}, CORROBORATED),
        ({"argmax_observed": [3, 1], "margins": [5.0, 0.01]}, CORROBORATED),
        ({"argmax_observed": [3, 1]}, FALSIFIED),
        ({"argmax_observed": [9, 4]}, FALSIFIED),
        ({"positions": 1}, ERROR),
    ],
)
def test_logits_exactly_at_their_limits_hold_them(fields, verdict):
    assert judged(logits(**fields), **LOGITS).verdict is verdict


@pytest.mark.parametrize(
    ("ran", "required", "verdict"),
    [
        ({"hole": 30, "overlap": 30}, {"hole": 30, "overlap": 30}, CORROBORATED),
        ({"hole": 41, "overlap": 40}, {"hole": 40, "overlap": 40}, CORROBORATED),
        ({"hole": 30, "overlap": 30, "gap": 30}, {"hole": 30, "overlap": 30, "gap": 30}, CORROBORATED),
        ({"hole": 30}, {"hole": 30}, ERROR),
        ({"hole": 30, "overlap": 29}, {"hole": 30, "overlap": 29}, ERROR),
    ],
)
def test_more_cases_than_the_least_are_as_good_and_fewer_are_not(ran, required, verdict):
    observation = Cases(name="seen", ran=ran, required=required)

    assert judged(observation, min_examples=30, min_classes=2).verdict is verdict


# --- what was read back -----------------------------------------------------------------------------------

MANY = {f"class {number}": 300 for number in range(300)}
IDS = list(range(1000, 1600))


@pytest.mark.parametrize(
    ("observation", "limits"),
    [
        (Equal(name="seen", expected={"ids": IDS}, observed={"ids": list(IDS)}), {}),
        (Equal(name="seen", expected=70_000, observed=70_000), {}),
        (Cases(name="seen", ran=MANY, required=dict(MANY)), {"min_examples": 300, "min_classes": 300}),
        (Tokens(name="seen", expected=IDS, observed=list(IDS), margins=[9.0] * 600), {"tie_margin": 0.1}),
        (
            logits(positions=600, argmax_expected=IDS, argmax_observed=list(IDS), margins=[9.0] * 600),
            LOGITS,
        ),
        (Measured(name="seen", value=70_000.0, unit="B"), {"relation": "==", "limit": 70_000.0}),
    ],
)
def test_an_observation_that_was_read_from_a_file_is_judged_like_the_one_that_was_made(observation, limits):
    made, read = judged(observation, **limits), judged(*stored([observation]), **limits)

    assert made == read
    assert read.verdict is CORROBORATED


def test_a_rehearsal_that_was_read_from_a_file_is_judged_like_the_one_that_was_made():
    made = judged(SAME, NO_NVML, row=NEEDY, situation=ON_CPU)

    assert judged(*stored([SAME, NO_NVML]), row=NEEDY, situation=ON_CPU) == made
    assert made.rehearsed is Rehearsed.SURVIVED


def test_the_want_of_a_device_that_was_read_from_a_file_excuses_no_clause_but_its_own():
    result = judged(*stored([NO_NVML]), row=NEEDY, situation=ON_CPU)

    assert (result.verdict, result.reason) == (ERROR, "contract: did not observe 'seen'")


# --- what is softened, and what is not --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observation", "verdict"),
    [
        (DIFFERENT, WARNING),
        (SAME, CORROBORATED),
        (Undecided(name="seen", reason="noisy"), INCONCLUSIVE),
        (Missing(name="seen", reason="no peer installed"), UNTESTED),
        (Measured(name="seen", value=1.0, unit="s"), ERROR),
    ],
)
def test_of_a_warning_row_only_a_failure_is_softened(observation, verdict):
    assert judged(observation, row=SOFT).verdict is verdict


def test_a_warning_is_told_with_the_name_of_what_was_observed():
    assert judged(DIFFERENT, row=SOFT).reason == "seen: expected 1, observed 2"


@pytest.mark.parametrize(("expected", "observed"), [(1, 2), (2, 1), ("b", "a"), ([2], [1])])
def test_what_is_larger_than_expected_differs_as_what_is_smaller_does(expected, observed):
    assert judged(Equal(name="seen", expected=expected, observed=observed)).verdict is FALSIFIED


def test_the_reason_is_that_of_the_worst_finding_and_not_of_the_first():
    row = msgspec.structs.replace(ROW, observes=("peer", "noise", "seen"))
    others = [Missing(name="peer", reason="no peer installed"), Undecided(name="noise", reason="noisy")]

    assert judged(*others, DIFFERENT, row=row).reason == "seen: expected 1, observed 2"


# --- the contract with the catalogue ----------------------------------------------------------------------


def test_what_only_a_gpu_must_show_may_be_observed_without_one():
    row = msgspec.structs.replace(ROW, observes_on_gpu=("residence",))
    more = Equal(name="residence", expected=1, observed=1)

    assert judged(SAME, more, row=row, situation=ON_CPU).verdict is CORROBORATED


@pytest.mark.parametrize("reason", ["no peer installed", "blocked by F-BUILD-001", "a capability is not offered"])
def test_a_lack_of_anything_but_the_device_ends_a_row_early_whatever_it_is_called(reason):
    row = msgspec.structs.replace(ROW, observes=("seen", "also"))

    result = judged(Missing(name="seen", reason=reason), row=row)

    assert (result.verdict, result.reason) == (UNTESTED, reason)
    assert [finding.name for finding in result.findings] == ["seen"]


@pytest.mark.parametrize("reason", ["no peer installed", "blocked by F-BUILD-001"])
def test_a_rehearsal_tells_any_other_lack_than_that_of_the_device(reason):
    result = judged(SAME, Missing(name="nvml", reason=reason), row=NEEDY, situation=ON_CPU)

    assert (result.verdict, result.reason, result.rehearsed) == (UNTESTED, reason, None)


def test_a_rehearsal_that_could_not_decide_did_not_survive_even_if_it_blames_the_device():
    row = msgspec.structs.replace(NEEDY, observes=("seen", "rate", "nvml"))

    result = judged(SAME, Undecided(name="rate", reason=NO_DEVICE), NO_NVML, row=row, situation=ON_CPU)

    assert (result.verdict, result.rehearsed) == (UNTESTED, None)


def test_a_rehearsal_with_a_warning_is_one_and_survived():
    row = msgspec.structs.replace(NEEDY, severity="WARNING")

    result = judged(DIFFERENT, NO_NVML, row=row, situation=ON_CPU)

    assert (result.verdict, result.reason, result.rehearsed) == (UNTESTED, NO_DEVICE, Rehearsed.SURVIVED)


@pytest.mark.parametrize("made", [ON_GPU, judged(SAME)])
def test_what_was_judged_and_for_whom_cannot_be_changed(made):
    field = made.__struct_fields__[0]

    with pytest.raises(AttributeError):
        setattr(made, field, getattr(made, field))


# --- words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "shown"),
    [
        (197, repr("x" * 197)),
        (198, repr("x" * 198)),
        (199, repr("x" * 199)[:200] + "… (201 characters)"),
        (400, repr("x" * 400)[:200] + "… (402 characters)"),
    ],
)
def test_a_long_value_is_cut_and_says_how_long_it_was(length, shown):
    assert judged(Equal(name="seen", expected=1, observed="x" * length)).reason == f"seen: expected 1, observed {shown}"


@pytest.mark.parametrize(("unit", "stated"), [("", "< 5 s"), ("ms", "< 5 ms")])
def test_a_limit_is_told_in_its_own_unit_or_in_that_of_the_number(unit, stated):
    [finding] = judged(Measured(name="seen", value=9.0, unit="s"), relation="<", limit=5.0, unit=unit).findings

    assert (finding.limit, finding.detail) == (stated, f"9 s, demanded {stated}")


def test_of_several_differences_the_first_is_told():
    failures = [CaseFailure(case_class=name, how="wrong_accept", detail=name) for name in ("hole", "overlap")]
    cases = Cases(name="seen", ran={"hole": 1}, required={"hole": 30}, failures=failures)

    assert judged(cases).reason == "seen: wrong_accept in hole: hole"
    assert "argmax differs at step 0;" in judged(logits(argmax_observed=[9, 9]), **LOGITS).reason


def test_a_class_of_which_a_single_example_is_demanded_is_missed_too():
    cases = Cases(name="seen", ran={"hole": 1}, required={"hole": 1, "overlap": 1})

    result = judged(cases, min_examples=1, min_classes=2)

    assert (result.verdict, result.reason) == (INCONCLUSIVE, "seen: too few examples in overlap")


def test_what_many_cases_could_have_shown_follows_from_the_class_with_the_fewest():
    observation = Cases(name="seen", ran={"hole": 60, "overlap": 40}, required={"hole": 30, "overlap": 30})

    [finding] = judged(observation, min_examples=30, min_classes=2).findings

    assert finding.detail == "100 examples"
    assert finding.detectable == "a class member of probability 8% with 95 % chance"


def test_what_a_series_could_have_shown_is_rounded_to_whole_kib():
    observation = Growth(name="seen", account=[5] * 100, witness=[1 << 30] * 100, witness_name="NVML", warm_up=20)

    [finding] = judged(observation, max_growth=1 << 20, alpha=0.001).findings

    assert finding.error_rate == 0.001
    assert "; 205 KiB an operation on the witness" in finding.detectable
