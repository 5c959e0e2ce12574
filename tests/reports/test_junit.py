"""JUnit: valid XML whatever is in it, one case a row, and nothing untested that looks passed."""

from xml.etree import ElementTree as ET

import msgspec
import sample_records as samples

from conformance.record import Record, RowResult
from conformance.verdicts import Verdict
from reports.junit import render_junit


def parsed(record: Record) -> ET.Element:
    return ET.fromstring(render_junit(record, samples.CATALOGUE))  # noqa: S314 our own output


def outcome(case: ET.Element) -> str:
    found = [name for name in ("failure", "error", "skipped") if case.find(name) is not None]
    assert len(found) <= 1
    return found[0] if found else "passed"


def test_every_row_is_one_case_of_its_section():
    cases = list(parsed(samples.mixed_record()).iter("testcase"))

    assert [case.get("name").split(" ")[0] for case in cases] == [row.id for row in samples.CATALOGUE.rows]
    assert [case.get("classname") for case in cases] == [row.section for row in samples.CATALOGUE.rows]


def test_each_verdict_has_its_own_outcome():
    record = samples.mixed_record()
    expected = {
        Verdict.FALSIFIED: "failure",
        Verdict.ERROR: "error",
        Verdict.UNTESTED: "skipped",
        Verdict.INCONCLUSIVE: "skipped",
        Verdict.WARNING: "passed",
        Verdict.CORROBORATED: "passed",
    }

    cases = list(parsed(record).iter("testcase"))

    assert [outcome(case) for case in cases] == [expected[row.verdict] for row in record.rows]


def test_a_skipped_row_says_why():
    root = parsed(samples.rehearsal_record())

    assert {case.find("skipped").get("message") for case in root.iter("testcase") if outcome(case) == "skipped"} == {
        "no CUDA device"
    }


def test_a_warning_passes_with_its_text_and_its_verdict():
    row = RowResult("F-BUILD-001", Verdict.WARNING, reason="deep: hardening")
    record = samples.survived_record()
    record = samples.finished(record.header, [row, *record.rows[1:]])

    case = next(parsed(record).iter("testcase"))

    assert outcome(case) == "passed"
    assert "deep: hardening" in case.findtext("system-out")
    assert case.find("properties/property[@name='verdict']").get("value") == "WARNING"


def test_a_failed_rehearsal_is_a_failure_and_a_survived_one_is_skipped():
    root = parsed(samples.rehearsal_record(failing=True))
    failed = [case.get("name").split(" ")[0] for case in root.iter("testcase") if outcome(case) == "failure"]

    assert failed == ["F-CUDA-012", "F-MEM-029", "F-MEM-032"]


def test_a_truncated_record_is_an_error_of_its_own():
    root = parsed(samples.truncated_record())
    last = list(root.iter("testcase"))[-1]

    assert root.get("tests") == "101"
    assert outcome(last) == "error"
    assert "truncated" in last.find("error").get("message")


def test_totals_are_the_sums_of_the_suites():
    root = parsed(samples.mixed_record())
    for attribute in ("tests", "failures", "errors", "skipped"):
        assert int(root.get(attribute)) == sum(int(suite.get(attribute)) for suite in root.iter("testsuite"))


def test_every_character_of_unicode_leaves_the_document_valid():
    everything = "".join(map(chr, range(0x11000))) + "\U000e0001\U0010ffff"
    row = RowResult("F-BUILD-001", Verdict.FALSIFIED, reason=everything[:300] + "]]>", reproduce=everything)
    record = samples.survived_record()

    root = parsed(samples.finished(record.header, [row, *record.rows[1:]]))

    assert "\\x00" in next(root.iter("failure")).text


def test_the_hashes_are_properties_of_the_trial():
    root = parsed(samples.mixed_record())
    values = {p.get("name"): p.get("value") for p in root.findall("properties/property")}
    header = samples.header()

    assert values["thresholds_sha256"] == header.thresholds_sha256
    assert values["catalogue_sha256"] == header.catalogue_sha256
    assert values["model_sha256"] == header.model.sha256


def test_a_row_the_record_never_expected_is_still_a_case():
    record = samples.survived_record()
    header = msgspec.structs.replace(record.header, rows=record.header.rows[:99])

    cases = list(parsed(Record(header, record.rows[:99], record.footer)).iter("testcase"))

    assert "skipped" in [outcome(case) for case in cases if case.get("name").startswith("F-INT-100")]
