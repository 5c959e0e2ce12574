"""The kill matrix on the page says what `falsify severity` wrote, and no more."""

import msgspec
import pytest
import sample_records as samples

from conformance.faults.matrix import Matrix, Part
from conformance.faults.specificity import Kill, Outcome
from reports.kills import Severity, kill_section, read_severity
from reports.scorecard import render_scorecard
from reports.tables import BrokenTable


def outcome(fault, row, *, how="falsified", specific=True):
    return Outcome(
        fault=fault, area="memory", what="what is wrong", seen_in="", machine="cpu", crash=False, expected=[row],
        tried=[row], killed_by=[Kill(row, "rate", how)] if how else [], collateral=[], unsteady=[], lost=[],
        specific=specific, reasons=[] if specific else ["unseen"], seconds=1.0,
    )  # fmt: skip


def test_what_falsify_severity_writes_is_read(tmp_path):
    healthy = {"F-MEM-029": "CORROBORATED", "F-MEM-030": "CORROBORATED"}
    part = Part(
        machine="cpu",
        devices=["a CPU"],
        revisions=["git:1"],
        healthy=healthy,
        healthy_runs=2,
        false_alarms=[],
        seconds=1,
    )
    faults = [
        outcome("stale", "F-MEM-029"),
        outcome("slow", "F-MEM-030", how="rehearsed: failed"),
        outcome("idle", "F-MEM-031", how="", specific=False),
    ]
    path = tmp_path / "severity.json"
    path.write_bytes(msgspec.json.encode(Matrix(parts=[part], faults=faults)))

    severity = read_severity(path)
    body = kill_section(severity, samples.CATALOGUE).body

    assert severity.killers() == {"F-MEM-029": ("stale",), "F-MEM-030": ("slow",)}
    assert "2 of 100 checks proven able to fail</b>, 1 of them only in rehearsal on the CPU" in body
    assert "Of 3 planted faults, 2 were seen" in body
    assert (
        "Control on a CPU: the healthy engine was tried on 2 checks, no false alarm. Harness <code>git:1</code>" in body
    )


@pytest.mark.parametrize("text", ["[]", "{}", '{"faults": [{"fault": 1}]}', "no JSON", "[" * 100_000])
def test_a_table_of_another_kind_is_an_error(tmp_path, text):
    path = tmp_path / "severity.json"
    path.write_text(text)

    with pytest.raises(BrokenTable):
        read_severity(path)


def test_without_a_table_of_faults_nothing_is_claimed():
    assert "Not measured" in kill_section(None, samples.CATALOGUE).body
    assert "0 of 100 checks proven" in kill_section(Severity(()), samples.CATALOGUE).body


def test_only_an_expected_row_of_a_fault_seen_for_what_it_is_proves_a_check():
    body = kill_section(samples.severity(), samples.CATALOGUE).body

    assert "2 of 100 checks proven able to fail</b>, 1 of them only in rehearsal on the CPU" in body
    assert "Of 4 planted faults, 2 were seen for what they are" in body
    assert body.count("✗ survived") == 1
    assert body.count("✓ killed") == 1
    assert body.count("not specific") == 1
    assert body.count("missed by 1") == 1
    assert "98 checks not seen to fail of any fault" in body


def test_the_healthy_engine_is_the_negative_control():
    body = kill_section(samples.severity(), samples.CATALOGUE).body

    assert "Control on NVIDIA H100: the healthy engine was tried on 2 checks, " in body
    assert "false alarms: F-MEM-030" in body


def test_the_faults_that_a_check_saw_stand_beside_it():
    killers = {"F-MEM-029": [f"fault{n}" for n in range(10)]}

    html = render_scorecard(samples.survived_record(), samples.CATALOGUE, killers=killers)

    assert html.count("Seen to fail of") == 1
    assert "fault7 and 2 more" in html
