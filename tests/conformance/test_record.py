"""A record says everything it was told, and one that was cut, doubled or changed is not believed."""

import json
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.observations import Equal, Failed, Measured
from conformance.record import (
    BrokenRecord,
    EngineIdentity,
    Footer,
    Header,
    ModelIdentity,
    RowResult,
    counts,
    encode_line,
    read_record,
    schema,
)
from conformance.trial.outcome import exit_code, headline_verdict
from conformance.verdicts import ExitCode, Rehearsed, Verdict

IDS = ["F-A-001", "F-A-002", "F-A-003"]
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "record.json"
TEXT = st.text(max_size=30)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBSERVATIONS = st.one_of(
    st.builds(Equal, name=TEXT, expected=JSON, observed=JSON, hardening=st.booleans()),
    st.builds(Measured, name=TEXT, value=st.floats(allow_nan=False, allow_infinity=False), unit=TEXT),
    st.builds(Failed, name=TEXT, how=TEXT, detail=TEXT),
)


def rows(**of):
    return st.builds(
        RowResult,
        verdict=st.sampled_from(Verdict),
        reason=TEXT,
        rehearsed=st.none() | st.sampled_from(Rehearsed),
        observations=st.lists(OBSERVATIONS, max_size=2),
        duration_s=st.floats(0, 1e6),
        **of,
    )


def header(**changes):
    fields = {
        "schema": "1.0",
        "trial_id": "t",
        "started": "now",
        "engine": EngineIdentity("e"),
        "model": ModelIdentity("m", "random", "0" * 64),
        "rows": IDS,
        "selected": IDS,
        "rehearsal": False,
        "seed": 0,
        "revision": "git:0",
        "revision_dirty": False,
        "catalogue_sha256": "0",
        "thresholds_sha256": "0",
        "environment": {},
        "command": [],
    }
    return Header(**(fields | changes))


def footer_of(results):
    return Footer(
        "completed", "later", 1.0, exit_code(results, rehearsal=False), counts(results), headline_verdict(results)
    )


RESULTS = [RowResult(row_id, Verdict.CORROBORATED) for row_id in IDS]
WHOLE = [header(), *RESULTS, footer_of(RESULTS)]


def read(tmp_path, *parts):
    path = tmp_path / "record.jsonl"
    path.write_bytes(b"".join(part if isinstance(part, bytes) else encode_line(part) for part in parts))
    return read_record(path)


@cache
def validator():
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@settings(max_examples=60, deadline=None)
@given(st.tuples(*(rows(id=st.just(row_id)) for row_id in IDS)))
def test_what_is_written_is_read_and_valid_by_the_published_schema(tmp_path_factory, results):
    lines = [header(), *results, footer_of(results)]

    record = read(tmp_path_factory.mktemp("record"), *lines)

    assert [record.header, *record.rows, record.footer] == lines
    for line in lines:
        validator().validate(json.loads(encode_line(line)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_record_cut_anywhere_is_truncated_or_broken_and_never_whole(tmp_path_factory, data):
    raw = b"".join(map(encode_line, WHOLE))
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]

    try:
        record = read(tmp_path_factory.mktemp("record"), cut)
    except BrokenRecord:
        assert cut.count(b"\n") == 0
    else:
        assert record.truncated
        assert [row.id for row in record.rows] == IDS
        lost = record.rows[max(0, cut.count(b"\n") - 1) :]
        assert {(row.verdict, row.reason) for row in lost} <= {(Verdict.UNTESTED, "no record")}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_no_byte_of_a_row_can_be_changed_into_another_verdict_unnoticed(tmp_path_factory, data):
    raw = bytearray(b"".join(map(encode_line, WHOLE)))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))

    try:
        record = read(tmp_path_factory.mktemp("record"), bytes(raw))
    except BrokenRecord:
        return
    assert record.truncated or counts(record.rows) == record.footer.counts


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "line 1 is not a header"),
        (RESULTS, "line 1 is not a header"),
        (WHOLE[1:], "line 1 is not a header"),
        ([header(schema="2.0"), *WHOLE[1:]], "schema '2.0'"),
        ([WHOLE[0], *RESULTS, RESULTS[1], WHOLE[-1]], "F-A-002 is recorded twice"),
        ([WHOLE[0], *RESULTS, RowResult("F-B-001", Verdict.FALSIFIED), WHOLE[-1]], "F-B-001 is not an expected row"),
        ([WHOLE[0], b"{nonsense\n", *WHOLE[1:]], "line 2"),
        ([WHOLE[0], b"\n", *WHOLE[1:]], "line 2"),
        ([WHOLE[0], b'{"line":"row","id":"F-A-001","verdict":"PASSED"}\n', *WHOLE[2:]], "line 2"),
        ([*WHOLE, b"x"], "bytes after the footer"),
        ([*WHOLE, RESULTS[0]], "a footer line among the rows"),
        ([*WHOLE, WHOLE[-1]], "a footer line among the rows"),
        ([WHOLE[0], *WHOLE], "a header line among the rows"),
        ([WHOLE[0], *RESULTS[1:], WHOLE[-1]], "does not count what the rows say"),
        ([WHOLE[0], RowResult(IDS[0], Verdict.FALSIFIED, "x"), *WHOLE[2:]], "does not count what the rows say"),
    ],
)
def test_what_cannot_be_trusted_is_broken_and_says_why(tmp_path, lines, why):
    with pytest.raises(BrokenRecord, match="record.jsonl") as caught:
        read(tmp_path, *lines)

    assert why in str(caught.value)


def test_a_file_that_is_not_there_is_broken(tmp_path):
    with pytest.raises(BrokenRecord, match="No such file"):
        read_record(tmp_path / "none")


def test_without_a_footer_it_is_truncated_and_missing_rows_are_untested(tmp_path):
    record = read(tmp_path, *WHOLE[:2], b'{"line":"row","id":"F-A-0')

    assert record.truncated
    assert [(row.verdict, row.reason) for row in record.rows[1:]] == [(Verdict.UNTESTED, "no record")] * 2


def test_lone_surrogates_become_question_marks(tmp_path):
    odd = RowResult(
        IDS[0], Verdict.FALSIFIED, reason="\ud800", observations=[Equal(name="x", expected={"\udfff": 1}, observed=[])]
    )

    record = read(tmp_path, WHOLE[0], odd)

    assert record.rows[0].reason == "?"


def test_the_published_schema_is_the_codes():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))


def test_counts_name_every_verdict():
    assert counts([]) == dict.fromkeys([verdict.value for verdict in Verdict], 0)
    assert counts(RESULTS)["CORROBORATED"] == 3


def test_the_exit_code_of_nothing_is_undecided():
    assert exit_code([], rehearsal=True) is ExitCode.UNDECIDED
