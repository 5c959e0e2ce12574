"""With a gate file every format says what the gate says, and none counts otherwise because of it."""

import json
import re
from datetime import date
from xml.etree import ElementTree as ET

import pytest
import sample_records as samples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.gate.decision import Cause, Decision
from conformance.observations import Equal
from conformance.record import Finding, RowResult, counts
from conformance.verdicts import ExitCode, Rehearsed, Verdict
from reports.badge import badge_json, badge_svg, make_badge
from reports.gate import paragraph
from reports.junit import render_junit
from reports.markdown import render_markdown
from reports.scorecard import render_scorecard
from reports.summary import READING_ORDER

IDS = [row.id for row in samples.CATALOGUE.rows]
GREEN, AMBER, RED = "#1c6445", "#8a5a00", "#b3231a"
SHUT = Decision(ExitCode.FALSIFIED, (Cause(ExitCode.FALSIFIED, IDS[0], f"{samples.HOSTILE} x"),), (), False)
EXCUSED = ((IDS[0], f"known until {date.max}: {samples.HOSTILE}"),)
OPEN = Decision(ExitCode.OPEN, (), EXCUSED, False)


def row_of(row_id, verdict, rehearsed=None):
    finding = Finding("right", verdict if verdict is not Verdict.UNTESTED else Verdict.CORROBORATED, "equal")
    right = Equal(name="right", expected=1, observed=1)
    reason = "" if verdict is Verdict.CORROBORATED else "for a reason"
    return RowResult(row_id, verdict, reason, rehearsed, [right], [finding])


def record_of(verdicts, *, rehearsal=False):
    rows = [
        row_of(row, verdict, Rehearsed.SURVIVED if rehearsal and verdict is Verdict.UNTESTED else None)
        for row, verdict in zip(IDS, verdicts, strict=True)
    ]
    return samples.finished(samples.header(rehearsal=rehearsal), rows)


def told(record, decision):
    """Counts, gate open or not, of each format."""
    page = render_scorecard(record, samples.CATALOGUE, decision=decision)
    legend = re.findall(r"<dt>.*?<b>(\d+)</b> ([a-z]+)</dt>", page)
    junit = ET.fromstring(render_junit(record, samples.CATALOGUE, decision))  # noqa: S314 our own output
    properties = {p.get("name"): p.get("value") for p in junit.iterfind("properties/property")}
    markdown = render_markdown(record, samples.CATALOGUE, decision)
    numbers = re.search(r"\|---.*\n\| (.*) \|", markdown)[1].split(" | ")
    badge = json.loads(badge_json(make_badge(record, samples.CATALOGUE, decision)))
    cases = [case.find("properties/property[@name='verdict']").get("value")
             for case in junit.iter("testcase") if case.get("classname") not in {"gate", "record"}]  # fmt: skip
    return {
        "record": (counts(record.rows), decision.open),
        "html": ({v.upper(): int(n) for n, v in legend}, "Gate OPEN (exit code 0)" in page),
        "strip": (
            {v.value: page.count(f'<a class="cell v-{v.value}') for v in Verdict},
            'class="gate shut"' not in page,
        ),
        "junit": ({v.value: int(properties[f"count.{v.value}"]) for v in Verdict}, properties["gate_exit_code"] == "0"),
        "junit cases": (
            {v.value: cases.count(v.value) for v in Verdict},
            junit.find("testsuite[@name='The gate']/testcase/failure") is None,
        ),
        "markdown": (
            dict(zip([v.value for v in READING_ORDER], map(int, numbers), strict=True)),
            "Gate OPEN" in markdown,
        ),
        "badge": (badge["counts"], badge["message"].startswith("gate open")),
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    st.lists(st.sampled_from(list(Verdict)), min_size=100, max_size=100),
    st.booleans(),
    st.sampled_from([OPEN, SHUT]),
)
def test_the_numbers_and_the_gate_are_the_same_in_every_format(verdicts, rehearsal, decision):
    record = record_of(verdicts, rehearsal=rehearsal)

    said = told(record, decision)

    assert all(each == said["record"] for each in said.values()), said


def test_a_shut_gate_is_a_failed_case_with_its_causes():
    junit = ET.fromstring(render_junit(samples.survived_record(), samples.CATALOGUE, SHUT))  # noqa: S314
    failure = junit.find("testsuite[@name='The gate']/testcase/failure")

    assert failure.get("message").startswith("Gate SHUT: falsified (exit code 1).")
    assert failure.get("type") == "FALSIFIED"
    assert failure.text.startswith(f"{IDS[0]}: ")
    assert (junit.get("tests"), junit.get("failures")) == ("101", "1")


def test_what_is_let_through_keeps_its_outcome_and_says_why():
    record = record_of([Verdict.FALSIFIED, *[Verdict.CORROBORATED] * 99])

    junit = ET.fromstring(render_junit(record, samples.CATALOGUE, OPEN))  # noqa: S314 our own output
    case = next(junit.iter("testcase"))

    assert case.find("failure") is not None
    assert case.find("properties/property[@name='let_through']").get("value").startswith("known until 9999-12-31")
    assert (junit.get("tests"), junit.get("failures")) == ("101", "1")
    assert paragraph(OPEN) in render_markdown(record, samples.CATALOGUE, OPEN)


@pytest.mark.parametrize(
    ("verdict", "decision", "colour"),
    [
        (Verdict.CORROBORATED, OPEN, GREEN),
        (Verdict.CORROBORATED, SHUT, RED),
        (Verdict.FALSIFIED, OPEN, AMBER),
        (Verdict.FALSIFIED, SHUT, RED),
        (Verdict.FALSIFIED, None, RED),
    ],
)
def test_a_badge_is_green_only_where_all_survived_and_the_gate_is_open(verdict, decision, colour):
    badge = make_badge(record_of([verdict, *[Verdict.CORROBORATED] * 99]), samples.CATALOGUE, decision)

    assert badge.color == colour
    assert badge.is_error == (colour == RED)
    assert badge.message.startswith("gate ") == (decision is not None)
    ET.fromstring(badge_svg(badge))  # noqa: S314 our own output
