"""The judge: every observation kind can be failed, nothing missing is green, and bad input is the harness's fault."""

from __future__ import annotations

import math

import msgspec
import pytest

from conformance.catalogue import NO_DEVICE, Row
from conformance.judge import Situation, judge
from conformance.observations import (
    CaseFailure,
    Cases,
    Equal,
    Failed,
    Growth,
    LogitsDistance,
    Measured,
    Missing,
    Observed,
    Sample,
    Tokens,
    Undecided,
)
from conformance.thresholds import Limit, Thresholds
from conformance.verdicts import Rehearsed, Verdict

ROW = Row(id="F-MEM-029", section="mem", test="t", criterion="c = FAIL", severity="FAIL", observes=("seen",))
ON_GPU = Situation(gpu=True, is_reference=True)
FOREIGN = Situation(gpu=True, is_reference=False)
ON_CPU = Situation(gpu=False, is_reference=True)


def thresholds(**fields):
    return Thresholds({ROW.id: {"seen": Limit(reason="test", **fields)}}, "0" * 64)


def verdict_of(*observations, row=ROW, situation=ON_GPU, **limit):
    return judge(row, observations, thresholds(**limit), situation).verdict


def same(value=1, **fields):
    return Equal(name="seen", expected=value, observed=value, **fields)


def different(**fields):
    return Equal(name="seen", expected=1, observed=2, **fields)


def test_equal_values_corroborate_without_a_reason():
    result = judge(ROW, [same()], thresholds(), ON_GPU)

    assert (result.verdict, result.reason) == (Verdict.CORROBORATED, "")


def test_different_values_falsify_and_say_which():
    result = judge(ROW, [different()], thresholds(), ON_GPU)

    assert result.verdict is Verdict.FALSIFIED
    assert result.reason == "seen: expected 1, observed 2"


@pytest.mark.parametrize(("expected", "observed"), [(1, True), (0, False), ("4", 4), ([], None), (1, 1.0)])
def test_equality_does_not_cross_types(expected, observed):
    assert verdict_of(Equal(name="seen", expected=expected, observed=observed)) is Verdict.FALSIFIED


def test_nothing_observed_is_an_error_never_green():
    assert verdict_of() is Verdict.ERROR


def test_a_demanded_observation_that_is_missing_is_an_error():
    row = msgspec.structs.replace(ROW, observes=("seen", "also"))

    result = judge(row, [same()], thresholds(), ON_GPU)

    assert result.verdict is Verdict.ERROR
    assert "did not observe 'also'" in result.reason


def test_an_observation_demanded_only_on_a_gpu():
    row = msgspec.structs.replace(ROW, observes_on_gpu=("residence",))

    assert verdict_of(same(), row=row, situation=ON_GPU) is Verdict.ERROR
    assert verdict_of(same(), row=row, situation=ON_CPU) is Verdict.CORROBORATED


def test_an_unlisted_or_repeated_observation_is_an_error():
    assert verdict_of(same(), Equal(name="other", expected=1, observed=1)) is Verdict.ERROR
    assert verdict_of(same(), same()) is Verdict.ERROR


def test_parts_of_one_observation_share_its_base_name():
    parts = [Equal(name=f"seen/{part}", expected=1, observed=1) for part in ("F16", "BF16")]

    assert verdict_of(*parts) is Verdict.CORROBORATED


def test_one_failure_outweighs_everything_else():
    row = msgspec.structs.replace(ROW, observes=("seen", "engine", "a", "b"))
    others = [Missing(name="a", reason="why"), Undecided(name="b", reason="why")]

    assert verdict_of(different(), *others, row=row) is Verdict.FALSIFIED


def test_an_untried_clause_keeps_the_row_untested_with_its_reason():
    row = msgspec.structs.replace(ROW, observes=("seen", "peer"))

    result = judge(row, [same(), Missing(name="peer", reason="no peer installed")], thresholds(), ON_GPU)

    assert (result.verdict, result.reason) == (Verdict.UNTESTED, "no peer installed")


def test_a_failed_engine_falsifies_though_other_observations_are_missing():
    row = msgspec.structs.replace(ROW, observes=("seen", "also"))

    result = judge(row, [Failed(name="engine", how="died", detail="signal 11")], thresholds(), ON_GPU)

    assert result.verdict is Verdict.FALSIFIED
    assert "signal 11" in result.reason
    assert not any(finding.name == "contract" for finding in result.findings)


def test_undecided_is_inconclusive():
    assert verdict_of(Undecided(name="seen", reason="noisy")) is Verdict.INCONCLUSIVE


def test_hardening_is_mandatory_for_the_reference_and_a_warning_for_others():
    assert verdict_of(different(hardening=True), situation=ON_GPU) is Verdict.FALSIFIED
    assert verdict_of(different(hardening=True), situation=FOREIGN) is Verdict.WARNING
    assert verdict_of(different(), situation=FOREIGN) is Verdict.FALSIFIED


def test_a_warning_row_never_falsifies():
    row = msgspec.structs.replace(ROW, severity="WARNING")

    assert verdict_of(different(), row=row) is Verdict.WARNING


@pytest.mark.parametrize(
    ("relation", "value", "verdict"),
    [
        (">", 5.0, Verdict.FALSIFIED),
        (">", 5.1, Verdict.CORROBORATED),
        (">=", 5.0, Verdict.CORROBORATED),
        ("<", 5.0, Verdict.FALSIFIED),
        ("<=", 5.0, Verdict.CORROBORATED),
        ("==", 5.0, Verdict.CORROBORATED),
        (">", math.nan, Verdict.FALSIFIED),
        ("<", math.nan, Verdict.FALSIFIED),
        (">", math.inf, Verdict.FALSIFIED),
    ],
)
def test_a_measured_number_against_its_limit(relation, value, verdict):
    observation = Measured(name="seen", value=value, unit="B/s")

    assert verdict_of(observation, relation=relation, limit=5.0) is verdict


def test_a_number_without_a_written_limit_is_an_error():
    result = judge(ROW, [Measured(name="seen", value=1.0, unit="s")], Thresholds({}, ""), ON_GPU)

    assert result.verdict is Verdict.ERROR
    assert "thresholds have no `limit`" in result.reason


RATE = {"relation": ">", "limit": 100.0, "alpha": 0.01, "looks": (5, 10, 20), "max_sd": 0.1}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([110.0, 111.0, 109.0, 110.5, 110.2], Verdict.CORROBORATED),
        ([90.0, 91.0, 89.0, 90.5, 90.2], Verdict.FALSIFIED),
        ([100.0, 101.0, 99.0, 100.5, 99.5], Verdict.INCONCLUSIVE),
        ([150.0], Verdict.INCONCLUSIVE),
        ([], Verdict.INCONCLUSIVE),
        ([50.0, 300.0, 500.0, 150.0, 900.0], Verdict.INCONCLUSIVE),
        ([110.0, 111.0, 109.0, 110.5, -1.0], Verdict.ERROR),
        ([110.0, 111.0, 109.0, 110.5, math.nan], Verdict.ERROR),
    ],
)
def test_a_sample_is_decided_three_ways(values, verdict):
    assert verdict_of(Sample(name="seen", values=values, unit="tok/s"), **RATE) is verdict


def test_a_sample_states_interval_error_rate_and_detectable_effect():
    observation = Sample(name="seen", values=[110.0, 111.0, 109.0, 110.5, 110.2], unit="tok/s")

    finding = judge(ROW, [observation], thresholds(**RATE), ON_GPU).findings[0]

    assert finding.interval is not None
    assert finding.interval[0] > 100
    assert finding.error_rate == 0.01
    assert "%" in finding.detectable


@pytest.mark.parametrize(("step", "verdict"), [(0, Verdict.CORROBORATED), (1024, Verdict.FALSIFIED)])
def test_growth_on_the_account(step, verdict):
    account = [10_000 + step * i for i in range(100)]
    observation = Growth(name="seen", account=account, witness=[1 << 30] * 100, witness_name="NVML", warm_up=20)

    assert verdict_of(observation, max_growth=64 << 20, alpha=0.001) is verdict


def test_growth_that_only_the_witness_sees():
    witness = [2 * 1024 * 1024 * (i // 2) for i in range(100)]
    observation = Growth(name="seen", account=[5] * 100, witness=witness, witness_name="NVML", warm_up=20)

    assert verdict_of(observation, max_growth=1 << 40, alpha=0.001) is Verdict.FALSIFIED


def test_growth_needs_the_whole_series():
    observation = Growth(name="seen", account=[5] * 10, witness=[5] * 10, witness_name="NVML", warm_up=2)

    assert verdict_of(observation, max_growth=1, alpha=0.001) is Verdict.ERROR


CASES = {"min_examples": 30, "min_classes": 2}


def test_cases_corroborate_only_when_every_class_ran_in_full():
    required = {"hole": 30, "overlap": 30}

    assert verdict_of(Cases(name="seen", ran=required, required=required), **CASES) is Verdict.CORROBORATED
    short = Cases(name="seen", ran={"hole": 30, "overlap": 29}, required=required)
    assert verdict_of(short, **CASES) is Verdict.INCONCLUSIVE
    absent = Cases(name="seen", ran={"hole": 30}, required=required)
    assert verdict_of(absent, **CASES) is Verdict.INCONCLUSIVE
    assert verdict_of(Cases(name="seen", ran={}, required={}), **CASES) is Verdict.ERROR
    few = Cases(name="seen", ran={"hole": 5, "overlap": 5}, required={"hole": 5, "overlap": 5})
    assert verdict_of(few, **CASES) is Verdict.ERROR


def test_one_failing_case_falsifies_and_is_named():
    failure = CaseFailure(case_class="hole", how="wrong_accept", detail="accepted a gap of 4 bytes")
    observation = Cases(name="seen", ran={"hole": 1}, required={"hole": 30, "overlap": 30}, failures=[failure])

    result = judge(ROW, [observation], thresholds(**CASES), ON_GPU)

    assert result.verdict is Verdict.FALSIFIED
    assert "wrong_accept in hole" in result.reason


def tokens(observed, *, margins=(9.0, 9.0, 0.01), reanchored=None):
    return Tokens(name="seen", expected=[1, 2, 3], observed=observed, margins=list(margins), reanchored=reanchored)


def test_token_parity_knows_identical_tie_and_diverged():
    assert verdict_of(tokens([1, 2, 3]), tie_margin=0.1) is Verdict.CORROBORATED
    assert verdict_of(tokens([1, 9, 3]), tie_margin=0.1) is Verdict.FALSIFIED
    assert verdict_of(tokens([1, 2, 9], reanchored=[]), tie_margin=0.1) is Verdict.CORROBORATED
    assert verdict_of(tokens([1, 2, 9]), tie_margin=0.1) is Verdict.FALSIFIED
    assert verdict_of(tokens([1, 2]), tie_margin=0.001) is Verdict.FALSIFIED
    assert verdict_of(tokens([1, 2, 3, 4]), tie_margin=0.1) is Verdict.FALSIFIED
    assert verdict_of(tokens([]), tie_margin=0.1) is Verdict.FALSIFIED


def test_no_golden_ids_is_an_error_not_a_vacuous_pass():
    empty = Tokens(name="seen", expected=[], observed=[], margins=[])

    assert verdict_of(empty, tie_margin=0.1) is Verdict.ERROR


LOGITS = {"max_abs": 1e-3, "min_cosine": 0.999, "tie_margin": 0.01}


def logits(**fields):
    given = {"positions": 2, "max_abs": 1e-4, "min_cosine": 0.99999, "argmax_expected": [3, 4]}
    given |= {"argmax_observed": [3, 4], "margins": [5.0, 5.0]} | fields
    return LogitsDistance(name="seen", **given)


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, Verdict.CORROBORATED),
        ({"max_abs": 2e-3}, Verdict.FALSIFIED),
        ({"max_abs": math.nan}, Verdict.FALSIFIED),
        ({"min_cosine": 0.99}, Verdict.FALSIFIED),
        ({"min_cosine": math.nan}, Verdict.FALSIFIED),
        ({"argmax_observed": [3, 9]}, Verdict.FALSIFIED),
        ({"argmax_observed": [3, 9], "margins": [5.0, 0.001]}, Verdict.CORROBORATED),
        ({"argmax_observed": [3]}, Verdict.ERROR),
        ({"positions": 0, "argmax_expected": [], "argmax_observed": [], "margins": []}, Verdict.ERROR),
    ],
)
def test_logits_against_golden_ones(fields, verdict):
    assert verdict_of(logits(**fields), **LOGITS) is verdict


@pytest.mark.parametrize(
    ("noise", "verdict"),
    [
        (None, Verdict.CORROBORATED),
        (1e-4, Verdict.CORROBORATED),
        (3e-5, Verdict.FALSIFIED),
        (1.0, Verdict.CORROBORATED),
    ],
)
def test_logits_are_held_to_the_golden_runs_own_rounding(noise, verdict):
    assert verdict_of(logits(max_abs=5e-4, noise=noise), **LOGITS, times_noise=6) is verdict


def test_noisy_goldens_excuse_nothing_beyond_the_largest_difference():
    assert verdict_of(logits(max_abs=2e-3, noise=1.0), **LOGITS, times_noise=6) is Verdict.FALSIFIED


def test_an_unknown_kind_of_observation_is_an_error():
    class Novel(Observed, frozen=True, kw_only=True, tag="novel"):
        pass

    assert verdict_of(Novel(name="seen")) is Verdict.ERROR


NEEDY = msgspec.structs.replace(ROW, needs=("cuda",), observes=("seen", "nvml"))
NO_NVML = Missing(name="nvml", reason=NO_DEVICE)


def test_a_rehearsal_never_corroborates():
    result = judge(NEEDY, [same(), NO_NVML], thresholds(), ON_CPU)

    assert (result.verdict, result.reason, result.rehearsed) == (Verdict.UNTESTED, NO_DEVICE, Rehearsed.SURVIVED)


def test_a_failed_rehearsal_says_so():
    result = judge(NEEDY, [different(), NO_NVML], thresholds(), ON_CPU)

    assert (result.verdict, result.rehearsed) == (Verdict.UNTESTED, Rehearsed.FAILED)
    assert "expected 1, observed 2" in result.reason


@pytest.mark.parametrize("others", [[], [Missing(name="seen", reason=NO_DEVICE)]])
def test_a_rehearsal_does_not_hide_that_something_other_than_the_device_is_lacking(others):
    lacking = Missing(name="engine", reason="capability device is not offered")

    result = judge(NEEDY, [*others, lacking], thresholds(), ON_CPU)

    assert (result.verdict, result.reason, result.rehearsed) == (Verdict.UNTESTED, lacking.reason, None)


def test_a_row_of_which_nothing_could_be_rehearsed_claims_nothing():
    result = judge(NEEDY, [Missing(name="seen", reason=NO_DEVICE), NO_NVML], thresholds(), ON_CPU)

    assert (result.verdict, result.rehearsed) == (Verdict.UNTESTED, None)


def test_a_broken_check_is_an_error_in_a_rehearsal_too():
    assert judge(NEEDY, [], thresholds(), ON_CPU).verdict is Verdict.ERROR
    assert judge(NEEDY, [same(), same(), NO_NVML], thresholds(), ON_CPU).verdict is Verdict.ERROR


def test_growth_tells_what_its_blocks_can_show():
    observation = Growth(name="seen", account=[5] * 20, witness=[1 << 30] * 20, witness_name="NVML", warm_up=4)

    [finding] = judge(ROW, [observation], thresholds(max_growth=1 << 40, alpha=0.001), ON_GPU).findings[:1]

    assert "1024 KiB an operation on the witness" in finding.detectable
