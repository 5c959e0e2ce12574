"""The lines of a record: what each says when it says the least, that none changes, and how a whole one is kept."""

import json

import msgspec
import pytest

from conformance.observations import Equal
from conformance.record import (
    BrokenRecord,
    EngineIdentity,
    Evidence,
    Finding,
    Footer,
    Header,
    MergedShard,
    ModelIdentity,
    Record,
    RowResult,
    Shard,
    counts,
    encode_line,
    parse_record,
    read_record,
    record_file,
    write_record,
)
from conformance.verdicts import ExitCode, Rehearsed, Verdict

ENGINE = EngineIdentity("e")
MODEL = ModelIdentity("m", "random", "0")
ROW = RowResult("F-A-001", Verdict.CORROBORATED)
HEADER = Header(
    "1.0", "t", "now", ENGINE, MODEL, ["F-A-001"], ["F-A-001"], False, 0, "git:0", False, "0", "0", {}, []
)  # fmt: skip
FOOTER = Footer("completed", "later", 1.0, ExitCode.OPEN, counts([ROW]), Verdict.CORROBORATED)
LEAST = [
    (Evidence("a", "0", 1), {"path", "sha256", "nbytes"}),
    (Finding("a", Verdict.ERROR, "r"), {"name", "verdict", "rule"}),
    (ENGINE, {"name"}),
    (MODEL, {"name", "kind", "sha256"}),
    (Shard(1, 2, [], "0"), {"index", "of", "selected", "inputs_sha256"}),
    (MergedShard(1, "t", "0", "now", {}), {"index", "trial_id", "record_sha256", "started", "environment"}),
    (ROW, {"line", "id", "verdict"}),
    (HEADER, {"line", *(HEADER.__struct_fields__)} - {"profile", "shard", "merged"}),
    (FOOTER, {"line", *FOOTER.__struct_fields__}),
]


@pytest.mark.parametrize(("said", "fields"), LEAST, ids=lambda each: type(each).__name__)
def test_what_is_not_said_takes_no_room_in_a_line(said, fields):
    assert set(json.loads(msgspec.json.encode(said))) == fields


@pytest.mark.parametrize("said", [*(said for said, _ in LEAST), Record(HEADER, [ROW], FOOTER)])
def test_nothing_of_a_record_can_be_changed_once_it_is_made(said):
    field = said.__struct_fields__[0]

    with pytest.raises(AttributeError):
        setattr(said, field, getattr(said, field))


def test_a_row_that_says_the_least_claims_nothing_more():
    row = msgspec.json.decode(b'{"line":"row","id":"F-A-001","verdict":"UNTESTED"}', type=RowResult)

    assert (row.reason, row.rehearsed, row.observations, row.findings, row.evidence) == ("", None, [], [], [])
    assert (row.duration_s, row.began_s, row.seed) == (0.0, 0.0, 0)
    assert (row.device, row.weights, row.reproduce) == ("", "", "")


def test_an_engine_that_says_the_least_is_not_the_reference():
    engine = msgspec.json.decode(b'{"name":"e"}', type=EngineIdentity)

    assert not engine.is_reference
    assert engine.capabilities == []
    assert msgspec.json.decode(b'{"name":"m","kind":"random","sha256":"0"}', type=ModelIdentity).nbytes == 0


@pytest.mark.parametrize(
    ("verdict", "rehearsed", "violated"),
    [
        (Verdict.FALSIFIED, None, True),
        (Verdict.UNTESTED, Rehearsed.FAILED, True),
        (Verdict.UNTESTED, Rehearsed.SURVIVED, False),
        (Verdict.UNTESTED, None, False),
        (Verdict.CORROBORATED, None, False),
        (Verdict.WARNING, None, False),
        (Verdict.INCONCLUSIVE, None, False),
        (Verdict.ERROR, None, False),
    ],
)
def test_a_criterion_is_violated_by_a_failure_and_by_a_failed_rehearsal_alone(verdict, rehearsed, violated):
    assert RowResult("F-A-001", verdict, rehearsed=rehearsed).violates is violated


def test_a_run_directory_stands_for_the_record_in_it(tmp_path):
    assert record_file(tmp_path) == tmp_path / "record.jsonl"
    assert record_file(tmp_path / "other.jsonl") == tmp_path / "other.jsonl"


@pytest.mark.parametrize("footer", [FOOTER, None])
def test_a_record_that_was_written_is_read_and_never_written_over(tmp_path, footer):
    path = tmp_path / "record.jsonl"
    record = Record(HEADER, [ROW], footer)

    write_record(record, path)

    assert read_record(path) == record
    assert read_record(path).truncated is (footer is None)
    with pytest.raises(FileExistsError):
        write_record(record, path)
    assert read_record(path) == record


def test_a_long_record_is_read_as_it_was_written(tmp_path):
    ids = [f"F-A-{number:03}" for number in range(300)]
    rows = [RowResult(row_id, Verdict.CORROBORATED) for row_id in ids]
    record = Record(
        msgspec.structs.replace(HEADER, rows=ids, selected=ids),
        rows,
        msgspec.structs.replace(FOOTER, counts=counts(rows)),
    )

    write_record(record, tmp_path / "record.jsonl")

    assert read_record(tmp_path / "record.jsonl") == record


def test_the_order_of_a_record_is_that_of_its_header_whenever_a_row_ended(tmp_path):
    ids = ["F-A-002", "F-A-001", "F-A-003"]
    lines = [msgspec.structs.replace(HEADER, rows=ids, selected=ids), ROW, RowResult("F-A-002", Verdict.WARNING, "x")]

    record = parse_record(b"".join(map(encode_line, lines)), tmp_path)

    assert [(row.id, row.verdict) for row in record.rows] == [
        ("F-A-002", Verdict.WARNING),
        ("F-A-001", Verdict.CORROBORATED),
        ("F-A-003", Verdict.UNTESTED),
    ]


@pytest.mark.parametrize("schema", ["", "0.9", "1", "1.0.0", "1.1", "2.0"])
def test_a_record_of_another_schema_is_not_read(tmp_path, schema):
    raw = encode_line(msgspec.structs.replace(HEADER, schema=schema)) + encode_line(ROW)

    with pytest.raises(BrokenRecord, match="this reader knows '1.0'"):
        parse_record(raw, tmp_path)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "line 1 is not a header"),
        (b"x", "line 1 is not a header"),
        (b"{nonsense\n", "line 1: "),
        (encode_line(HEADER) + b"\xff\n", "line 2: "),
        (encode_line(HEADER) + encode_line(ROW) + b"[" * 200_000 + b"\n", "line 3: "),
        (encode_line(HEADER) + encode_line(ROW)[:-2] + b',"observations":' + b"[" * 200_000 + b"\n", "line 2: "),
        (encode_line(HEADER) + encode_line(FOOTER) + b" ", "bytes after the footer"),
    ],
)
def test_bytes_that_are_no_record_are_broken_at_a_line(tmp_path, raw, why):
    with pytest.raises(BrokenRecord) as caught:
        parse_record(raw, tmp_path / "r.jsonl")

    assert caught.value.path == tmp_path / "r.jsonl"
    assert caught.value.cause.startswith(why)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.cause}"


def test_a_row_that_was_cut_leaves_those_before_it(tmp_path):
    record = parse_record(encode_line(HEADER) + encode_line(ROW) + b'{"line":"row"', tmp_path)

    assert record == Record(HEADER, [ROW], None)


def test_what_json_cannot_carry_is_replaced_wherever_it_stands_and_nothing_else_is():
    odd = Equal(name="x", expected={"\udfff": ["\ud800", 1, None, True]}, observed=(2.5, "é"))

    line = json.loads(encode_line(RowResult("F-A-001", Verdict.FALSIFIED, "\udead", observations=[odd])))

    assert line["reason"] == "?"
    assert line["observations"][0]["expected"] == {"?": ["?", 1, None, True]}
    assert line["observations"][0]["observed"] == [2.5, "é"]


def test_a_record_that_cannot_be_opened_is_broken_for_the_system_s_reason(tmp_path):
    with pytest.raises(BrokenRecord) as caught:
        read_record(tmp_path / "none")

    assert caught.value.cause == "No such file or directory"
