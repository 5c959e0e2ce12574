"""What a page shows besides its record: it claims no more than it was given."""

import re

import msgspec
import sample_records as samples

from conformance.comparison import compare
from conformance.done.gates import DoneLine, Standing
from conformance.gate.decision import Cause, Decision
from conformance.record import Record, write_record
from conformance.verdicts import ExitCode
from reports.difference import comparison_section, comparison_text
from reports.gate import paragraph, workflow_commands
from reports.history import glyph, history_text, read_history
from reports.kills import Kill, Part, Planted, Severity, kill_section
from reports.plots import plot
from reports.scaling import scaling
from reports.scorecard import render_scorecard
from reports.tables import done_section

HOSTILE = '<script>alert(1)</script>\n::error::injected, "%0A'


def test_without_a_table_of_gates_nothing_is_claimed():
    assert "Not measured" in done_section(None).body


def test_a_gate_without_a_value_is_not_measured():
    lines = (
        DoneLine("speed", verdict=Standing.MET),
        DoneLine("lint", value=3, verdict=Standing.NOT_MET),
        DoneLine("mutants", value=79, verdict=Standing.WARNING),
        DoneLine("tdg", verdict=Standing.NOT_ASKED),
    )
    body = done_section(lines).body

    assert [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td>(<(?:b|span).*?)</td>", body)] == [
        "not measured", "not met", "warning", "not asked",
    ]  # fmt: skip
    assert '<b class="bad">not met</b>' in body


def test_hostile_words_stay_words():
    words = (HOSTILE,)
    planted = Planted(*words * 5, words, words, (Kill(*words * 3),), words, True, words)
    kills = Severity(
        (planted, msgspec.structs.replace(planted, specific=False)), (Part(HOSTILE, words, words, {}, words),)
    )
    done = (DoneLine(HOSTILE, HOSTILE, 1.0, HOSTILE, HOSTILE, HOSTILE),)
    compared = compare(samples.survived_record(), samples.mixed_record())
    for body in (
        kill_section(kills, samples.CATALOGUE).body,
        done_section(done).body,
        comparison_section(compared).body,
    ):
        assert "<script" not in body
    decision = Decision(ExitCode.FALSIFIED, (Cause(ExitCode.FALSIFIED, "", HOSTILE),), ((HOSTILE, HOSTILE),), False)
    page = render_scorecard(samples.survived_record(), samples.CATALOGUE, decision=decision)
    assert "<script" not in page.split("</header>")[0]
    assert paragraph(decision).count("\n") == 0
    assert workflow_commands(decision) == ['::error title=gate::<script>alert(1)</script> ::error::injected, "%250A']


def test_a_decision_stands_in_the_place_of_the_trials_own_exit_code():
    shut = Decision(ExitCode.USAGE, (Cause(ExitCode.USAGE, "F-MEM-029", "stale"),), (), False)

    html = render_scorecard(samples.survived_record(), samples.CATALOGUE, decision=shut)

    assert "Gate SHUT: the gate file or the record does not fit (exit code 2). F-MEM-029: stale." in html
    assert "Gate: open" not in html
    assert 'class="gate shut"' in html


def test_many_causes_are_counted_and_the_deciding_ones_come_first():
    causes = (*(Cause(ExitCode.UNDECIDED, f"F-A-{n}", "x") for n in range(20)), Cause(ExitCode.FALSIFIED, "F-B", "y"))

    told = paragraph(Decision(ExitCode.FALSIFIED, causes, (), True))

    assert told.startswith("Gate SHUT: falsified (exit code 1). F-B: y.")
    assert "And 13 further causes." in told
    assert told.endswith("nothing was shown about the GPU.")


def test_the_difference_is_told_by_row_and_worst_first():
    text = comparison_text(compare(samples.survived_record(), samples.mixed_record()))

    assert text.index("new failure") < text.index("no longer shown")
    assert "F-MEM-029" in text


def test_earlier_trials_stand_beside_each_row_in_their_order_and_once_in_full():
    past = (samples.survived_record(), samples.mixed_record(), samples.rehearsal_record())

    html = render_scorecard(samples.survived_record(), samples.CATALOGUE, history=past)
    row = html[html.index('id="F-MEM-029"') :]
    told = row[row.index('class="history"') : row.index("</p>", row.index('class="history"'))]

    assert html.count('class="history"') == 100
    assert "corroborated, falsified, untested" in told
    assert re.findall(r">(.)</b>", told) == ["✓", "✗", glyph(past[2].rows[28])]
    assert html.count('<h2 id="earlier">') == 1
    assert "one of them is a rehearsal on the CPU" in html[html.index('<h2 id="earlier">') :]


def test_another_engines_past_is_not_this_ones(tmp_path):
    mine, other = samples.survived_record(), samples.mixed_record()
    engine = msgspec.structs.replace(other.header.engine, name="another")
    for place, (engine_of, trial) in enumerate([(mine.header.engine, "earlier"), (engine, "foreign")]):
        header = msgspec.structs.replace(mine.header, engine=engine_of, trial_id=trial)
        write_record(Record(header, mine.rows, mine.footer), tmp_path / f"record{place}.jsonl")

    assert [record.header.trial_id for record in read_history(tmp_path, before=mine)] == ["earlier"]


def test_a_history_lists_only_rows_that_changed():
    text = history_text([samples.survived_record(), samples.mixed_record()])

    assert "F-MEM-029    ✓✗" in text
    assert "F-BUILD-001" not in text


def test_both_hypotheses_are_drawn_with_their_words():
    svg = scaling([(16, 0.001), (1000, 0.0012)], [(16, 0.002), (1000, 0.04)])

    assert "hypothesis cached" in svg
    assert "hypothesis recomputed" in svg
    assert "1.0 ms" in svg or "1 ms" in svg
    assert "40 ms at 1000" in svg


def test_a_measurement_is_drawn_only_with_points_of_both_kinds():
    from conformance.observations import Measured

    both = {"step_s@16": 1e-3, "step_s@1000": 2e-3, "prefill_s@16": 2e-3, "prefill_s@1000": 0.04}

    assert plot(Measured(name="recompute_ratio", value=0.05, unit="x", context=both), None).startswith("<svg")
    assert plot(Measured(name="recompute_ratio", value=0.05, unit="x"), None) == ""
    assert plot(Measured(name="recompute_ratio", value=0.05, unit="x", context={"step_s@x": 1.0}), None) == ""


def test_the_link_is_drawn_beside_the_rates_that_crossed_it():
    from conformance.observations import Sample

    rates = Sample(name="bandwidth", values=[50e9, 52e9], unit="B/s", context={"pinned": 54.8e9, "other": 1.0})
    svg = plot(rates, None)

    assert "our own copies, pinned: 54.8 GB/s" in svg
    assert svg.count('class="reference"') == 1


def test_failures_that_are_let_through_are_told_before_rows_that_cannot_be_tried():
    excused = (*((f"F-A-{n}", "may be untested: x") for n in range(20)), ("F-B", "known until 2999-12-31: y"))

    told = paragraph(Decision(ExitCode.OPEN, (), excused, rehearsal=False))

    assert "Let through by the gate file: F-B, known until 2999-12-31: y; F-A-0" in told
    assert "and 13 more." in told
