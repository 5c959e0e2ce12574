"""Record → JUnit XML: 100 test cases, one suite a section, nothing untested ever counted as passed."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from xml.etree import ElementTree as ET

from conformance.catalogue import Catalogue
from conformance.gate.decision import Decision
from conformance.record import Record
from conformance.verdicts import Verdict
from reports.explain import brief, decisive, points
from reports.gate import paragraph
from reports.summary import Entry, Summary, summarise
from reports.text import clip, one_line, visible

OUTCOME: dict[Verdict, str] = {
    Verdict.FALSIFIED: "failure",
    Verdict.ERROR: "error",
    Verdict.UNTESTED: "skipped",
    Verdict.INCONCLUSIVE: "skipped",
    Verdict.WARNING: "",
    Verdict.CORROBORATED: "",
}
"""The element of a test case for each verdict; empty where it passes."""
_MAX_TEXT = 20_000


def render_junit(record: Record, catalogue: Catalogue, decision: Decision | None = None) -> str:
    """The record as JUnit XML.

    FALSIFIED is a failure, and so is a failed rehearsal; ERROR is an error; UNTESTED and INCONCLUSIVE are skipped
    with their reason; a WARNING passes with its text. A record that is truncated or contradicts itself has one
    more test case, which is an error. With a gate file's decision there is one more, which fails where the gate is
    shut; a row that the gate lets through keeps its outcome and says so in a property.
    """
    summary = summarise(record, catalogue)
    root = ET.Element("testsuites", {"name": f"falsify {_attribute(record.header.engine.name)}"})
    _properties(root, _trial_properties(record, summary, decision))
    excused = dict(decision.excused) if decision else {}
    for section, group in groupby(summary.entries, key=lambda entry: entry.section):
        suite = ET.SubElement(root, "testsuite", {"name": f"{section.numeral} {section.title}"})
        for entry in group:
            suite.append(_case(entry, excused.get(entry.row.id, "")))
        _count(suite, record.header.started)
    if not summary.trustworthy:
        _count(_trust_suite(root, summary), record.header.started)
    if decision is not None:
        _count(_gate_suite(root, decision), record.header.started)
    _count(root, record.header.started)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(entry: Entry, excuse: str) -> ET.Element:
    row, result = entry.row, entry.result
    case = ET.Element(
        "testcase",
        {
            "name": _attribute(f"{row.id} {row.test}"),
            "classname": row.section,
            "time": f"{result.duration_s:.3f}",
        },
    )
    _properties(case, _case_properties(entry, excuse))
    outcome = _outcome(entry)
    if outcome:
        attributes = {"message": _attribute(result.reason or result.verdict.value), "type": result.verdict.value}
        ET.SubElement(case, outcome, attributes).text = _body(entry)
    elif result.verdict is Verdict.WARNING:
        ET.SubElement(case, "system-out").text = _body(entry)
    return case


def _outcome(entry: Entry) -> str:
    return "failure" if entry.rehearsal_failed else OUTCOME[entry.result.verdict]


def _body(entry: Entry) -> str:
    result = entry.result
    lines = [f"criterion: {entry.row.criterion}", f"verdict: {result.verdict.value}: {result.reason}"]
    decider = decisive(result)
    if decider and decider.observation:
        lines.append(f"decided by {decider.name}: {brief(decider.observation)}")
    for point in points(result):
        if point.finding:
            finding = point.finding
            lines.append(f"{finding.verdict.value} {finding.name}: {finding.detail} [{finding.rule}] {finding.limit}")
    lines += [f"evidence: {e.path} sha256={e.sha256} bytes={e.nbytes}" for e in result.evidence]
    lines += [f"reproduce: {result.reproduce}"] if result.reproduce else []
    return clip(visible("\n".join(lines)), _MAX_TEXT)


def _trial_properties(record: Record, summary: Summary, decision: Decision | None) -> Iterable[tuple[str, str]]:
    header = record.header
    yield "headline", summary.headline
    yield "gate", paragraph(decision) if decision else summary.gate
    if decision is not None:
        yield "gate_exit_code", str(int(decision.code))
    yield "engine", f"{header.engine.name} {header.engine.version}".strip()
    yield "model", f"{header.model.name} ({header.model.kind})"
    yield "model_sha256", header.model.sha256
    yield "catalogue_sha256", header.catalogue_sha256
    yield "thresholds_sha256", header.thresholds_sha256
    yield "revision", header.revision + (" (dirty)" if header.revision_dirty else "")
    yield "seed", str(header.seed)
    yield "rehearsal", str(header.rehearsal).lower()
    yield from ((f"count.{verdict}", str(number)) for verdict, number in summary.counts.items())


def _case_properties(entry: Entry, excuse: str) -> Iterable[tuple[str, str]]:
    result = entry.result
    yield "id", entry.row.id
    yield "verdict", result.verdict.value
    yield "severity", entry.row.severity
    if result.rehearsed:
        yield "rehearsed", result.rehearsed.value
    if excuse:
        yield "let_through", excuse
    if result.weights:
        yield "weights", result.weights
    yield "seed", str(result.seed)


def _trust_suite(root: ET.Element, summary: Summary) -> ET.Element:
    suite, case = _single(root, "The record itself", "the record can be trusted", "record")
    text = "\n".join(problem.text for problem in summary.problems if problem.grave)
    ET.SubElement(case, "error", {"message": _attribute(text), "type": "RECORD"}).text = visible(text)
    return suite


def _gate_suite(root: ET.Element, decision: Decision) -> ET.Element:
    suite, case = _single(root, "The gate", "the gate lets this trial through", "gate")
    told = paragraph(decision)
    if not decision.open:
        causes = "\n".join(f"{cause.row or 'the record'}: {cause.words}" for cause in decision.causes)
        failure = ET.SubElement(case, "failure", {"message": _attribute(told), "type": decision.code.name})
        failure.text = clip(visible(causes), _MAX_TEXT)
    return suite


def _single(root: ET.Element, suite_name: str, case_name: str, kind: str) -> tuple[ET.Element, ET.Element]:
    suite = ET.SubElement(root, "testsuite", {"name": suite_name})
    return suite, ET.SubElement(suite, "testcase", {"name": case_name, "classname": kind, "time": "0.000"})


def _count(element: ET.Element, started: str) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    for attribute, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(outcome) is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    if element.tag == "testsuite":
        element.set("timestamp", _attribute(started))


def _properties(parent: ET.Element, pairs: Iterable[tuple[str, str]]) -> None:
    holder = ET.SubElement(parent, "properties")
    for name, value in pairs:
        ET.SubElement(holder, "property", {"name": name, "value": _attribute(value)})


def _attribute(text: str) -> str:
    return one_line(text, 500)
