"""All formats are made from one record: they must agree on every count, and none may look better than it."""

import re
from collections import Counter
from xml.etree import ElementTree as ET

import pytest
import sample_records as samples

from conformance.record import Record, counts
from conformance.verdicts import Verdict
from reports.badge import badge_json, make_badge
from reports.junit import render_junit
from reports.markdown import render_markdown
from reports.scorecard import render_scorecard
from reports.summary import READING_ORDER, summarise

RECORDS = {
    "mixed": samples.mixed_record(),
    "survived": samples.survived_record(),
    "rehearsal": samples.rehearsal_record(),
    "failed rehearsal": samples.rehearsal_record(failing=True),
    "truncated": samples.truncated_record(),
}


def from_html(record: Record) -> dict[str, int]:
    page = render_scorecard(record, samples.CATALOGUE)
    cells = Counter(re.findall(r'<a class="cell v-([A-Z]+)', page))
    rows = Counter(re.findall(r'data-verdict="([A-Z]+)"', page))
    legend = re.findall(r"<dt>.*?<b>(\d+)</b> ([a-z]+)</dt>", page)
    assert cells == rows
    assert {name.upper(): int(n) for n, name in legend} == {v.value: cells[v.value] for v in Verdict}
    return {verdict.value: cells[verdict.value] for verdict in Verdict}


def from_junit(record: Record) -> dict[str, int]:
    root = ET.fromstring(render_junit(record, samples.CATALOGUE))  # noqa: S314 our own output
    found = Counter(p.get("value") for p in root.iterfind(".//testcase/properties/property[@name='verdict']"))
    return {verdict.value: found[verdict.value] for verdict in Verdict}


def from_markdown(record: Record) -> dict[str, int]:
    numbers = re.search(r"\|---.*\n\| (.*) \|", render_markdown(record, samples.CATALOGUE))[1].split(" | ")
    return dict(zip([verdict.value for verdict in READING_ORDER], map(int, numbers), strict=True))


@pytest.mark.parametrize("name", RECORDS)
def test_every_format_counts_what_the_record_counts(name):
    record = RECORDS[name]
    expected = counts(record.rows)

    assert sum(expected.values()) == 100
    assert from_html(record) == expected
    assert from_junit(record) == expected
    assert from_markdown(record) == expected
    assert make_badge(record, samples.CATALOGUE).counts == expected
    assert summarise(record, samples.CATALOGUE).counts == expected


@pytest.mark.parametrize("name", RECORDS)
def test_only_a_complete_survival_is_green(name):
    green = make_badge(samples.survived_record(), samples.CATALOGUE).color

    assert (make_badge(RECORDS[name], samples.CATALOGUE).color == green) == (name == "survived")


@pytest.mark.parametrize("name", RECORDS)
def test_no_format_lets_hostile_text_through(name):
    record = RECORDS[name]
    rendered = [
        render_scorecard(record, samples.CATALOGUE),
        render_junit(record, samples.CATALOGUE),
        render_markdown(record, samples.CATALOGUE),
        badge_json(make_badge(record, samples.CATALOGUE)),
    ]
    for text in rendered:
        assert not set(text) & {"\x00", "\x1b", "\x07", "\u202e", "\u200b", "\ufeff"}
    for text in rendered[:2]:
        assert '<script>alert("pwned")' not in text
        assert "<img" not in text
