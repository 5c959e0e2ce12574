"""Readers by malformation class: what went wrong, and the smallest file itself."""

import base64

import msgspec
from sample_records import mixed_record

from conformance.observations import CaseFailure, Cases
from reports.malformations import malformations, tried_classes

RAW = b"\x08\x00\x00\x00\x00\x00\x00\x00{<b>}   "
FAILURE = CaseFailure(case_class="shapes.dim_negative", how="wrong_accept", detail="<taken>", file="a.st", sha256="ab")


def record_of(name, failures=()):
    cases = Cases(
        name="files",
        ran={"shapes.dim_negative": 7, "offsets.hole": 30, "never": 0},
        required={"shapes.dim_negative": 30, "offsets.hole": 30, "never": 30},
        failures=list(failures),
    )
    whole = mixed_record()
    clear = msgspec.structs.replace(cases, name="clear", hardening=True)
    rows = [
        msgspec.structs.replace(row, observations=[cases, clear] if row.id == "F-PARSE-041" else [])
        for row in whole.rows
    ]
    engine = msgspec.structs.replace(whole.header.engine, name=name)
    return msgspec.structs.replace(whole, header=msgspec.structs.replace(whole.header, engine=engine), rows=rows)


def test_each_class_that_was_reached_is_told_with_its_row():
    tried = tried_classes(record_of("x", [FAILURE]))

    assert {name: (one.row, one.files, one.failure) for name, one in tried.items()} == {
        "shapes.dim_negative": ("F-PARSE-041", 7, FAILURE),
        "offsets.hole": ("F-PARSE-041", 30, None),
    }


def test_the_smallest_file_lies_in_the_page_and_nothing_of_it_is_markup(tmp_path):
    evidence = tmp_path / "evidence" / "F-PARSE-041"
    evidence.mkdir(parents=True)
    (evidence / "a.st").write_bytes(RAW)
    page = malformations([(record_of("good"), tmp_path), (record_of("<bad>", [FAILURE]), tmp_path)])

    assert base64.b64encode(RAW).decode() in page
    assert "&lt;bad&gt;" in page
    assert "&lt;taken&gt;" in page
    assert "<b>" not in page
    assert "right: 2" in page
    assert "right: 1<br>wrong_accept: 1" in page


def test_without_the_file_its_hash_stands_there(tmp_path):
    page = malformations([(record_of("bad", [FAILURE]), tmp_path)])

    assert "<code>ab</code>" in page
    assert "data:" not in page
