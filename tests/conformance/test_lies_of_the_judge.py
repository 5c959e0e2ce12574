"""Ways in which a judge or a stored record was greener than what it held; each is tried on ours.

The numbers are those of the list in docs/lies.md.
"""

import math
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.catalogue import NO_DEVICE, Row, load_catalogue
from conformance.judge import Situation, judge
from conformance.observations import Cases, Equal, Growth, LogitsDistance, Measured, Missing, Sample, Tokens
from conformance.record import (
    SCHEMA_VERSION,
    EngineIdentity,
    Finding,
    Footer,
    Header,
    ModelIdentity,
    Record,
    RowResult,
    counts,
)
from conformance.statistics import Decision, decide_rate
from conformance.thresholds import Limit, Thresholds
from conformance.trial.outcome import NOT_SELECTED, contradictions, exit_code, headline_verdict
from conformance.verdicts import EXIT_MEANING, MEANING, ExitCode, Rehearsed, Verdict, roll_up

ROW = Row(id="F-MEM-029", section="mem", test="t", criterion="c = FAIL", severity="FAIL", observes=("seen",))
NEEDY = msgspec.structs.replace(ROW, needs=("cuda",), observes=("seen", "also", "nvml"))
ON_GPU = Situation(gpu=True, is_reference=True)
ON_CPU = Situation(gpu=False, is_reference=True)
GREEN = {Verdict.CORROBORATED, Verdict.WARNING}


def verdict_of(*observations, row=ROW, situation=ON_GPU, **limit):
    thresholds = Thresholds({ROW.id: {"seen": Limit(reason="test", **limit)}}, "0" * 64)
    return judge(row, observations, thresholds, situation).verdict


def same(name="seen"):
    return Equal(name=name, expected=1, observed=1)


def result(verdict, row_id="F-MEM-029", **fields):
    return RowResult(row_id, verdict, **fields)


def evident(row_id):
    finding = Finding("seen", Verdict.CORROBORATED, "equal")
    return RowResult(row_id, Verdict.CORROBORATED, observations=[same()], findings=[finding])


def record_of(rows, *, code=None, selected=None):
    ids = [row.id for row in rows]
    header = Header(
        SCHEMA_VERSION, "t", "now", EngineIdentity("e"), ModelIdentity("m", "random", "0"), ids,
        ids if selected is None else selected, False, 0, "r", False, "0", "0", {}, [],
    )  # fmt: skip
    right = exit_code(rows, rehearsal=False)
    footer = Footer("completed", "", 1.0, right if code is None else code, counts(rows), headline_verdict(rows))
    return Record(header, rows, footer)


def test_lie_01_a_row_without_an_observation_is_never_green():
    for row in load_catalogue().rows:
        for gpu in (True, False):
            judged = judge(row, [], Thresholds({}, ""), Situation(gpu, is_reference=True))
            assert judged.verdict not in GREEN
            assert judged.rehearsed is None


def test_lie_01_the_want_of_a_device_excuses_no_clause_but_its_own():
    cut_short = [same(), Missing(name="nvml", reason=NO_DEVICE)]
    thresholds = Thresholds({}, "")

    judged = judge(NEEDY, cut_short, thresholds, ON_CPU)
    whole = judge(NEEDY, [*cut_short, same("also")], thresholds, ON_CPU)

    assert (judged.verdict, judged.reason) == (Verdict.ERROR, "contract: did not observe 'also'")
    assert (whole.verdict, whole.rehearsed) == (Verdict.UNTESTED, Rehearsed.SURVIVED)


def test_lie_02_skipped_rows_are_their_own_count():
    rows = [result(Verdict.UNTESTED, reason="skipped"), result(Verdict.CORROBORATED)]

    assert counts(rows) | {"UNTESTED": 1, "CORROBORATED": 1} == counts(rows)
    assert exit_code(rows, rehearsal=False) is ExitCode.UNDECIDED


@pytest.mark.parametrize("verdict", [Verdict.UNTESTED, Verdict.INCONCLUSIVE])
@pytest.mark.parametrize("rehearsal", [True, False])
@pytest.mark.parametrize("number", [0, 1, 100])
def test_lie_03_nothing_decided_is_never_open(verdict, rehearsal, number):
    rows = [result(verdict, reason="not supported")] * number

    assert exit_code(rows, rehearsal=rehearsal) is ExitCode.UNDECIDED


def test_lie_04_fewer_results_than_rows_are_not_fewer_failures():
    required = {"hole": 30, "overlap": 30}
    limits = {"min_examples": 30, "min_classes": 2}

    assert verdict_of(Cases(name="seen", ran={}, required=required), **limits) is Verdict.INCONCLUSIVE
    assert verdict_of(Cases(name="seen", ran=required, required={}), **limits) is Verdict.ERROR
    assert verdict_of(Tokens(name="seen", expected=[1, 2], observed=[], margins=[9, 9]), tie_margin=1.0) is (
        Verdict.FALSIFIED
    )


def test_lie_07_all_skipped_is_not_survived():
    assert roll_up([]) is Verdict.UNTESTED
    assert roll_up([Verdict.UNTESTED, Verdict.CORROBORATED]) is Verdict.UNTESTED
    for some in permutations(Verdict, 3):
        assert roll_up(some) is min(some, key=list(_WORST_FIRST).index)


_WORST_FIRST = (
    Verdict.FALSIFIED,
    Verdict.ERROR,
    Verdict.UNTESTED,
    Verdict.INCONCLUSIVE,
    Verdict.WARNING,
    Verdict.CORROBORATED,
)


@given(st.lists(st.sampled_from(Verdict), max_size=8), st.sampled_from(Verdict))
def test_lie_07_one_more_verdict_never_makes_the_whole_better(verdicts, another):
    before, after = (_WORST_FIRST.index(roll_up(some)) for some in (verdicts or [another], [*verdicts, another]))

    assert after <= before


def test_lie_08_a_hundred_rows_whatever_the_catalogue_says_of_itself():
    rows = load_catalogue().rows

    assert len({row.id for row in rows}) == len({row.function for row in rows}) == 100
    assert [row.number for row in rows] == list(range(1, 101))


EMPTY_LOGITS = LogitsDistance(
    name="seen", positions=0, max_abs=0.0, min_cosine=1.0, argmax_expected=[], argmax_observed=[], margins=[]
)


@pytest.mark.parametrize(
    ("observation", "limits"),
    [
        (Tokens(name="seen", expected=[], observed=[], margins=[]), {"tie_margin": 0.1}),
        (EMPTY_LOGITS, {"max_abs": 1.0, "min_cosine": 0.0, "tie_margin": 0.1}),
        (msgspec.structs.replace(EMPTY_LOGITS, positions=2), {"max_abs": 1.0, "min_cosine": 0.0, "tie_margin": 0.1}),
        (Cases(name="seen", ran={}, required={}), {"min_examples": 0, "min_classes": 1}),
        (Sample(name="seen", values=[], unit="s"), {"limit": 1.0, "alpha": 0.01, "max_sd": 0.1, "looks": (2,)}),
        (Growth(name="seen", account=[], witness=[], witness_name="w", warm_up=0), {"max_growth": 1, "alpha": 0.1}),
    ],
)
def test_lie_10_a_comparison_of_nothing_is_never_green(observation, limits):
    assert verdict_of(observation, **limits) not in GREEN


def test_lie_10_a_witness_that_saw_nothing_clears_nobody():
    blind = Growth(name="seen", account=[7] * 100, witness=[0] * 100, witness_name="NVML", warm_up=20)
    awake = msgspec.structs.replace(blind, witness=[1 << 30] * 100)

    assert verdict_of(blind, max_growth=1 << 20, alpha=0.001) is Verdict.INCONCLUSIVE
    assert verdict_of(awake, max_growth=1 << 20, alpha=0.001) is Verdict.CORROBORATED


def test_lie_11_no_text_of_a_finding_decides():
    pleading = Equal(name="seen", expected="a result", observed=NO_DEVICE)
    row = msgspec.structs.replace(NEEDY, observes=("seen",))

    judged = judge(row, [pleading], Thresholds({}, ""), ON_CPU)

    assert judged.rehearsed is Rehearsed.FAILED
    assert exit_code([result(Verdict.FALSIFIED, reason=NOT_SELECTED)], rehearsal=True) is ExitCode.FALSIFIED


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [9.0] * 4])
def test_lie_14_too_few_values_decide_nothing(values):
    decided = decide_rate(values, 1.0, larger_is_better=True, alpha=0.01, looks=(5, 10), max_sd=0.1)

    assert decided.decision is Decision.UNDECIDED


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("relation", ["<", ">"])
def test_lie_14_a_statistic_that_cannot_be_computed_is_our_error(bad, relation):
    values = [2.0, 2.1, 2.2, 2.0, bad]
    limits = {"limit": 1.0, "alpha": 0.01, "max_sd": 0.1, "looks": (5,), "relation": relation}

    assert verdict_of(Sample(name="seen", values=values, unit="s"), **limits) is Verdict.ERROR


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("observation", "limits"),
    [
        (Measured(name="seen", value=1.0, unit="s"), {"relation": "<", "limit": 2.0}),
        (Growth(name="seen", account=[1] * 100, witness=[1] * 100, witness_name="w", warm_up=20), {"max_growth": 1}),
        (Tokens(name="seen", expected=[1], observed=[2], margins=[9.0], reanchored=[]), {"tie_margin": 0.1}),
    ],
)
def test_lie_14_a_limit_that_is_no_number_is_our_error(observation, limits, bad):
    for field in set(limits) - {"relation"}:
        assert verdict_of(observation, **{"alpha": 0.01, **limits, field: bad}) is Verdict.ERROR


def test_lie_14_a_margin_that_is_no_number_excuses_no_difference():
    flipped = LogitsDistance(
        name="seen", positions=1, max_abs=0.0, min_cosine=1.0, argmax_expected=[1], argmax_observed=[2],
        margins=[math.nan],
    )  # fmt: skip

    assert verdict_of(flipped, max_abs=1.0, min_cosine=0.9, tie_margin=0.1) is Verdict.FALSIFIED


def test_lie_15_a_row_that_is_known_to_fail_stays_in_the_sum():
    rows = [result(Verdict.FALSIFIED, reason="known"), result(Verdict.UNTESTED, reason="known issue")]

    assert sum(counts(rows).values()) == 2
    assert exit_code(rows, rehearsal=False) is ExitCode.FALSIFIED


def test_lie_16_every_way_to_end_has_its_code_and_only_one_is_zero():
    assert [code for code in ExitCode if code == 0] == [ExitCode.OPEN]
    for verdict in set(Verdict) - GREEN:
        assert exit_code([evident("F-A-001"), result(verdict, reason="x")], rehearsal=False) is not ExitCode.OPEN


def test_lie_17_no_verdict_lacks_its_meaning_and_no_spread_is_made_up():
    assert set(MEANING) == set(Verdict)
    assert set(EXIT_MEANING) == set(ExitCode)
    nothing = decide_rate([], 1.0, larger_is_better=True, alpha=0.01, looks=(5,), max_sd=0.1)
    assert math.isnan(nothing.mean)
    assert nothing.interval == (0.0, math.inf)


def test_lie_20_a_green_row_without_evidence_is_a_contradiction():
    bare = record_of([result(Verdict.CORROBORATED), evident("F-MEM-030")])
    against = record_of(
        [msgspec.structs.replace(evident("F-MEM-029"), findings=[Finding("seen", Verdict.FALSIFIED, "equal")])]
    )

    assert list(contradictions(record_of([evident("F-MEM-029")]))) == []
    assert list(contradictions(bare)) == ["F-MEM-029 is CORROBORATED without anything observed and judged."]
    assert list(contradictions(against)) == ["F-MEM-029 is CORROBORATED against its own findings."]


def test_lie_20_an_exit_code_that_is_stored_is_not_believed():
    rows = [evident("F-MEM-029"), result(Verdict.FALSIFIED, "F-MEM-030", reason="x")]

    assert list(contradictions(record_of(rows, code=ExitCode.OPEN))) == [
        "The footer's exit code is 0, that of its rows is 1."
    ]


def test_lie_20_a_row_cannot_leave_the_selection_afterwards():
    rows = [evident("F-MEM-029"), result(Verdict.UNTESTED, "F-MEM-030", reason=NOT_SELECTED)]

    assert list(contradictions(record_of(rows, selected=["F-MEM-029"]))) == []
    assert len(list(contradictions(record_of(rows)))) == 1


def test_lie_20_half_the_evidence_is_none():
    whole = evident("F-MEM-029")
    halves = [msgspec.structs.replace(whole, observations=[]), msgspec.structs.replace(whole, findings=[])]

    assert [len(list(contradictions(record_of([half])))) for half in halves] == [1, 1]


def test_lie_20_a_record_that_was_read_from_a_file_is_judged_by_what_it_says():
    rows = [result(Verdict.UNTESTED, "F-MEM-029", reason=NO_DEVICE, rehearsed=Rehearsed.SURVIVED),
            result(Verdict.UNTESTED, "F-MEM-030", reason=NOT_SELECTED)]  # fmt: skip
    read = msgspec.json.decode(msgspec.json.encode(rows), type=list[RowResult])

    assert exit_code(read, rehearsal=True) is exit_code(rows, rehearsal=True) is ExitCode.OPEN
