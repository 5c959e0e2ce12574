"""Ways in which the report of a run was greener than the run; the numbers are those of docs/lies.md."""

from xml.etree import ElementTree as ET

import msgspec
import pytest
import sample_records as samples

from conformance.observations import Growth, Sample
from conformance.record import Finding, Footer, Record, RowResult, counts
from conformance.verdicts import ExitCode, Verdict
from reports import badge, junit
from reports.badge import make_badge
from reports.junit import render_junit
from reports.markdown import render_markdown
from reports.plots import plot
from reports.scorecard import render_scorecard
from reports.summary import GLYPH, READING_ORDER, summarise

GREEN = make_badge(samples.survived_record(), samples.CATALOGUE).color


def with_rows(*changed):
    record = samples.survived_record()
    by_id = {row.id: row for row in changed}
    return samples.finished(record.header, [by_id.get(row.id, row) for row in record.rows])


def cases(record):
    return list(ET.fromstring(render_junit(record, samples.CATALOGUE)).iter("testcase"))  # noqa: S314 our own output


def claims(record):
    """What each format says of the whole, in one word where it can be taken for success."""
    summary = summarise(record, samples.CATALOGUE)
    return {
        "gate": summary.gate_open,
        "badge": make_badge(record, samples.CATALOGUE).color == GREEN,
        "scorecard": "Survived: all 100 tests" in render_scorecard(record, samples.CATALOGUE),
        "markdown": "Gate: open" in render_markdown(record, samples.CATALOGUE),
        "junit": all(case.find(bad) is None for case in cases(record) for bad in ("failure", "error", "skipped")),
    }


def test_an_honest_record_of_a_survival_is_success_in_every_format():
    assert set(claims(samples.survived_record()).values()) == {True}


@pytest.mark.parametrize("verdict", [Verdict.UNTESTED, Verdict.INCONCLUSIVE])
def test_lie_02_one_skipped_row_is_success_in_no_format(verdict):
    assert not any(claims(with_rows(RowResult("F-MEM-029", verdict, reason="skipped"))).values())


def test_lie_04_a_row_without_a_result_is_untested_in_every_format():
    record = samples.survived_record()
    header = msgspec.structs.replace(record.header, rows=record.header.rows[:-1], selected=record.header.selected[:-1])
    short = samples.finished(header, record.rows[:-1])

    assert sum(case.find("skipped") is not None for case in cases(short)) == 1
    assert summarise(short, samples.CATALOGUE).counts["UNTESTED"] == 1
    assert make_badge(short, samples.CATALOGUE).color != GREEN


OUTCOME = {Verdict.FALSIFIED: "failure", Verdict.ERROR: "error", Verdict.UNTESTED: "skipped"}


@pytest.mark.parametrize("verdict", OUTCOME)
def test_lie_06_what_the_engine_failed_is_a_failure_and_what_we_failed_an_error(verdict):
    case = next(
        c for c in cases(with_rows(RowResult("F-MEM-029", verdict, reason="x"))) if "F-MEM-029" in c.get("name")
    )

    assert [each.tag for each in case if each.tag != "properties"] == [OUTCOME[verdict]]
    assert case.find("properties/property[@name='verdict']").get("value") == verdict.value


def test_lie_07_a_section_of_which_all_is_skipped_is_not_passed():
    skipped = [
        RowResult(row.id, Verdict.UNTESTED, reason="capability file is not offered")
        for row in samples.CATALOGUE.rows
        if row.section == "parse"
    ]
    root = ET.fromstring(render_junit(with_rows(*skipped), samples.CATALOGUE))  # noqa: S314 our own output
    (suite,) = (suite for suite in root if suite.get("name", "").startswith("IV "))

    assert (suite.get("tests"), suite.get("skipped")) == ("10", "10")
    assert not any(claims(with_rows(*skipped)).values())


def test_lie_15_the_denominator_is_always_the_whole_catalogue():
    some = [RowResult("F-MEM-029", Verdict.UNTESTED, reason="known"), RowResult("F-MEM-030", Verdict.FALSIFIED, "x")]

    assert "98/100" in make_badge(with_rows(*some), samples.CATALOGUE).message
    assert "of 100 tests" in summarise(with_rows(*some), samples.CATALOGUE).headline


def test_lie_17_every_verdict_has_its_own_sign_and_none_falls_through():
    assert set(GLYPH) == set(READING_ORDER) == set(Verdict)
    assert set(badge._COLOUR) == set(junit.OUTCOME) == set(Verdict)


def test_lie_17_no_picture_of_what_was_not_measured():
    nothing = Sample(name="rate", values=[], unit="GB/s")
    unseen = Growth(name="growth", account=[], witness=[], witness_name="NVML", warm_up=0)

    assert plot(nothing, None) == plot(unseen, None) == ""
    assert plot(Sample(name="rate", values=[1.0, 2.0], unit="GB/s"), None).count("<circle") == 2


def forged():
    """Records that say more than they hold."""
    record = samples.survived_record()
    bare = RowResult("F-MEM-029", Verdict.CORROBORATED)
    falsified = with_rows(RowResult("F-MEM-029", Verdict.FALSIFIED, reason="x"))
    footer = Footer("completed", "", 1.0, ExitCode.OPEN, counts(falsified.rows), Verdict.CORROBORATED)
    against = msgspec.structs.replace(record.rows[0], findings=[Finding("right", Verdict.FALSIFIED, "equal")])
    return {
        "no evidence": with_rows(bare),
        "stored exit code": Record(falsified.header, falsified.rows, footer),
        "against its findings": with_rows(against),
    }


@pytest.mark.parametrize("name", ["no evidence", "stored exit code", "against its findings"])
def test_lie_20_a_claim_that_the_evidence_does_not_carry_is_success_in_no_format(name):
    assert not any(claims(forged()[name]).values())
