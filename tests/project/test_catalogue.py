"""The catalogue says what the specification says, word for word, and selects what it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from conformance.catalogue import UnknownSelector, load_catalogue

SPECIFICATION = Path(__file__).parents[2] / "docs" / "safetensors-gpu-inference-1.2.0.md"
ROW = re.compile(r"^\| (F-[A-Z]+-\d{3}) \| (.+?) \| (.+?) \|$", re.MULTILINE)
SECTION = re.compile(r"^### ([IVX]+)\. (.+) \((\d+) Points\)$", re.MULTILINE)


def test_all_hundred_rows_are_word_for_word_the_specification():
    stated = ROW.findall(SPECIFICATION.read_text())

    assert len(stated) == 100
    assert [(row.id, row.test, row.criterion) for row in load_catalogue().rows] == stated


def test_ids_run_from_one_to_a_hundred():
    assert [row.number for row in load_catalogue().rows] == list(range(1, 101))


def test_sections_and_their_sizes_are_the_specifications():
    catalogue = load_catalogue()
    stated = [(numeral, title, int(points)) for numeral, title, points in SECTION.findall(SPECIFICATION.read_text())]

    ours = [
        (section.numeral, section.title, sum(row.section == section.key for row in catalogue.rows))
        for section in catalogue.sections
    ]

    assert ours == stated


def test_severity_is_what_the_criterion_ends_with():
    for row in load_catalogue().rows:
        assert row.criterion.endswith(row.severity), row.id


def test_every_row_that_names_the_gpu_needs_one():
    named = re.compile(r"\b(cuda|gpu|h2d|vram)\b", re.IGNORECASE)
    types_named_after_cuda = {"F-BUILD-002", "F-BUILD-003", "F-BUILD-004"}
    for row in load_catalogue().rows:
        if named.search(row.test + row.criterion) and row.id not in types_named_after_cuda:
            assert row.needs_cuda, row.id


def test_selects_by_id_word_and_section_in_catalogue_order():
    catalogue = load_catalogue()

    by_word = catalogue.select(["f_mem"], [])
    by_id = catalogue.select(["F-MEM-029", "001"], [])
    by_both = catalogue.select(["F-INT-100"], ["err"])

    assert [row.number for row in by_word] == list(range(21, 36))
    assert [row.id for row in by_id] == ["F-BUILD-001", "F-MEM-029"]
    assert [row.number for row in by_both] == [91, 92, 93, 94, 95, 100]


def test_nothing_selected_means_everything():
    assert len(load_catalogue().select([], [])) == 100


@pytest.mark.parametrize(
    ("words", "sections"), [(["f_men"], []), ([], ["memory"]), ([""], []), (["f_mem", "nope"], [])]
)
def test_a_selector_that_matches_nothing_is_an_error(words, sections):
    with pytest.raises(UnknownSelector, match="matches no row"):
        load_catalogue().select(words, sections)
