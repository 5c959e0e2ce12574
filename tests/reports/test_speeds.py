"""Speeds side by side: of one machine, of a GPU, and what was not measured stays empty."""

from pathlib import Path

import msgspec
import pytest

from conformance.catalogue import load_catalogue
from conformance.observations import Sample
from conformance.record import Finding, read_record
from conformance.verdicts import Verdict
from reports.compare import comparison
from reports.speeds import speeds

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CATALOGUE = load_catalogue()


@pytest.fixture(scope="module")
def on_gpu():
    return read_record(RESULTS / "h100" / "record.jsonl")


@pytest.fixture(scope="module")
def rehearsed():
    return read_record(RESULTS / "engines" / "transformers" / "record.jsonl")


def with_header(record, **changes):
    return msgspec.structs.replace(record, header=msgspec.structs.replace(record.header, **changes))


def beside_a_peer(record, values, note="llama_cpp 9"):
    """The record with a decided F-PERF-090, under another engine's name."""
    context = {"engine_tok_s": 400.0, "peer_tok_s": 250.0, "cores": 16.0}
    sample = Sample(name="ratio_to_peer", values=values, unit="x", note=note, context=context)
    finding = Finding(name="ratio_to_peer", verdict=Verdict.CORROBORATED, rule="R1", interval=(1.5, 1.7))
    rows = [
        msgspec.structs.replace(row, observations=[sample], findings=[finding]) if row.id == "F-PERF-090" else row
        for row in record.rows
    ]
    engine = msgspec.structs.replace(record.header.engine, name="other")
    return with_header(msgspec.structs.replace(record, rows=rows), engine=engine)


def cells(table, row):
    return {line.name: line.cells for line in table.lines if line.row == row}


def test_a_rate_is_told_with_its_interval_and_the_number_of_runs(on_gpu):
    (table,) = speeds([on_gpu])

    assert cells(table, "F-PERF-083")["rate"] == ["255.7 tok/s, 247.8 to 263.8, 5 runs"]
    assert cells(table, "F-PERF-088")["utilisation"] == ["98 %"]
    assert "F-PERF-090" not in {line.row for line in table.lines}


def test_what_one_engine_lacks_is_an_empty_cell(on_gpu):
    (table,) = speeds([on_gpu, beside_a_peer(on_gpu, [1.6, 1.6])])

    told = cells(table, "F-PERF-090")
    assert told["ratio_to_peer"] == ["", "1.6 x, 1.5 to 1.7, 2 runs beside llama_cpp 9"]
    assert (told["engine"], told["peer"]) == (["", "400 tok/s"], ["", "250 tok/s"])
    assert "cores" not in told


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_values_that_are_no_speed_do_not_break_the_page(on_gpu, value):
    (table,) = speeds([beside_a_peer(on_gpu, [value])])

    assert cells(table, "F-PERF-090")["ratio_to_peer"][0].startswith("nan x")


def test_records_of_two_machines_are_two_tables(on_gpu):
    gpus = [dict(on_gpu.header.environment["gpus"][0]) | {"name": "another"}]
    other = with_header(on_gpu, environment=on_gpu.header.environment | {"gpus": gpus})

    assert [len(table.records) for table in speeds([on_gpu, other])] == [1, 1]


def test_a_rehearsal_has_no_speed_and_the_page_says_so(rehearsed):
    assert speeds([rehearsed]) == []
    assert "no table of speed" in comparison([rehearsed], CATALOGUE)


def test_the_page_names_the_machine_and_what_an_engine_says_is_text(on_gpu):
    page = comparison([on_gpu, beside_a_peer(on_gpu, [1.6], note="<b>fast</b>")], CATALOGUE)

    assert "Speed on one machine" in page
    assert "NVIDIA H100 80GB HBM3" in page
    assert "beside &lt;b&gt;fast&lt;/b&gt;" in page
