"""Markdown and badge: foreign text can neither format nor link, and what is not green is not shown green."""

import json
import re
from xml.etree import ElementTree as ET

import pytest
import sample_records as samples
from hypothesis import given
from hypothesis import strategies as st

from conformance.record import RowResult
from conformance.verdicts import Verdict
from reports.badge import badge_json, badge_svg, make_badge
from reports.markdown import code_block, code_span, render_markdown


@given(st.text(alphabet="`ab |\n<", max_size=40))
def test_a_code_span_cannot_be_left(text):
    span = code_span(text)
    fence = re.match(r"`+", span)[0]

    assert span.endswith(fence)
    assert fence not in span[len(fence) : -len(fence)].strip() or "`" not in text
    assert not re.search(rf"(?<!`){fence}(?!`)", span[len(fence) : -len(fence)])
    assert "\n" not in span
    assert "|" not in span


@given(st.text(alphabet="`~ab\n", max_size=60))
def test_a_code_block_cannot_be_left(text):
    lines = code_block(text).split("\n")

    assert lines[-1] == lines[0].removesuffix("text")
    assert not [line for line in lines[1:-1] if line.strip().startswith(lines[-1])]


def test_the_summary_names_what_failed_and_how_to_see_it_again():
    text = render_markdown(samples.mixed_record(), samples.CATALOGUE)

    assert text.startswith("## Falsified: 7 of 100 tests violated their criterion.\n\n**Gate: shut, exit code 1")
    assert "### ✗ `F-MEM-029` falsified" in text
    assert "falsify run --engine 'engines/naïve.toml' --seed 29 F-MEM-029" in text
    assert "1 \N{MULTIPLICATION SIGN} `no peer installed: llama.cpp`" in text


def test_a_hundred_failures_stay_readable():
    rows = [RowResult(row.id, Verdict.FALSIFIED, reason="x" * 10_000) for row in samples.CATALOGUE.rows]

    text = render_markdown(samples.finished(samples.header(), rows), samples.CATALOGUE)

    assert "… and 70 more" in text
    assert len(text) < 200_000


def test_a_truncated_record_says_so():
    assert "**The record is truncated" in render_markdown(samples.truncated_record(), samples.CATALOGUE)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (samples.survived_record(), "100/100 survived"),
        (samples.mixed_record(), "7 falsified, 89/100 survived"),
        (samples.rehearsal_record(), "rehearsal, 58/100 survived"),
        (samples.truncated_record(), "broken record, 3 falsified, 36/100 survived"),
    ],
    ids=["survived", "mixed", "rehearsal", "truncated"],
)
def test_the_badge_says_the_worst_first(record, message):
    badge = make_badge(record, samples.CATALOGUE)
    read = json.loads(badge_json(badge))

    assert (read["schemaVersion"], read["label"], read["message"]) == (1, "falsify", message)
    assert ET.fromstring(badge_svg(badge)).get("aria-label") == f"falsify: {message}"  # noqa: S314 our own output
