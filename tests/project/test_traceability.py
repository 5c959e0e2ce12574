"""The traceability page has every section, table line, row and citation of the specification."""

import re

import pytest

from conformance.documentation.pages import ROOT, SPECIFICATION

TEXT = (ROOT / SPECIFICATION).read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "traceability.md").read_text(encoding="utf-8")
PLAIN = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{2,3} (?:(?P<number>[\d.]+\d|\d+|[IVX]+)\.? )?(?P<title>.+)$", re.MULTILINE)


def cells_of(page):
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


TOLD = cells_of(PAGE)
HEADINGS = [(match["number"] or "", match["title"]) for match in HEADING.finditer(PLAIN)]


def lines_of_section(number):
    """The first cells of the tables under a heading of the specification."""
    body = re.split(rf"^#+ {re.escape(number)}\.? ", PLAIN, flags=re.MULTILINE)[1]
    table = cells_of(re.split(r"^#+ ", body, flags=re.MULTILINE)[0])
    return [cells[0] for cells in table[2:]]


def test_the_specification_was_read():
    assert len(HEADINGS) == 53
    assert ("1.3", "PMAT Work Integration (MANDATORY)") in HEADINGS
    assert ("", "Abstract") in HEADINGS


@pytest.mark.parametrize("heading", HEADINGS, ids=" ".join)
def test_every_section_has_a_line(heading):
    number, title = heading
    if re.fullmatch(r"2\.\d+", number):
        assert [cells for cells in TOLD if cells[0] == number and cells[1].startswith(title)]
    else:
        assert [cells for cells in TOLD if cells[:2] == [number, title] and cells[2]]


@pytest.mark.parametrize("number", ["1.3", "5", "8.1", "9"])
def test_every_line_of_a_table_has_one_here(number):
    wanted = lines_of_section(number)
    assert len(wanted) >= 4
    assert set(wanted) <= {cells[0] for cells in TOLD if cells[1]}


def test_every_acceptance_criterion_has_a_line():
    wanted = re.findall(r"^- \[ \] (.+)$", PLAIN, re.MULTILINE)
    assert len(wanted) == 10
    assert set(wanted) <= {cells[0] for cells in TOLD if cells[1]}


def test_every_citation_has_a_line_with_its_authors_and_its_work():
    cited = re.findall(r"^### (2\.\d+) .*?^\*\*Citation:\*\* (.+?)$", PLAIN, re.MULTILINE | re.DOTALL)
    assert len(cited) == 12
    told = {cells[0]: cells for cells in TOLD}
    for number, citation in cited:
        authors, _, rest = citation.partition(' "')
        assert authors.rstrip(".") in told[number][1], citation
        assert f'"{re.split(r"[:.,]", rest)[0]}' in told[number][1], citation
        assert told[number][2]


def test_every_reference_has_a_line_that_leads_to_its_section():
    references = re.findall(r"^(\d+)\. (.+? \(\d{4}\))", PLAIN.split("## 10. References")[1], re.MULTILINE)
    assert len(references) == 12
    for number, authors in references:
        [line] = [cells for cells in TOLD if cells[0] == number and cells[1].startswith(authors.split(" (")[0])]
        assert line[2]


def test_every_row_has_a_line_in_the_specifications_own_words():
    rows = re.findall(r"^\| (F-[A-Z]+-\d{3}) \| (.+) \| (.+) \|$", PLAIN, re.MULTILINE)
    told = {cells[0]: cells for cells in TOLD}
    assert len(rows) == 100
    for row, test, criterion in rows:
        line = told[f"[{row}](checks/{row.lower()}.md)"]
        assert line[1:3] == [test, criterion]
        assert line[3].startswith("**judged**")


def test_what_became_of_a_line_is_one_of_three_words():
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[2:]:
        if section.startswith(("Sections", "Metrics", "Gates", "Acceptance", "Performance", "Risks", "Rows")):
            for cells in cells_of(section)[2:]:
                assert re.search(r"\*\*(judged|built|left out)\*\*|see ", cells[-1]), cells


def test_gates_that_are_named_exist():
    from conformance.done.gates import load_gates

    named = set(re.findall(r"gates? `(\w+)`", PAGE))
    assert named <= {gate.key for gate in load_gates()}
