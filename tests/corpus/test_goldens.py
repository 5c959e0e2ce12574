import hashlib

import msgspec
import numpy as np
import pytest

from conformance.corpus.goldens import (
    GoldenRun,
    GoldensCorrupt,
    GoldensForAnotherModel,
    GoldensMissing,
    golden_paths,
    load_goldens,
    save_goldens,
)
from conformance.corpus.models import RANDOM


@pytest.fixture
def copy(tmp_path):
    for path in golden_paths(RANDOM, "F32"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def rewrite(directory, change):
    record = golden_paths(directory, "F32")[0]
    record.write_bytes(msgspec.json.encode(change(msgspec.json.decode(record.read_bytes(), type=GoldenRun))))


def test_logits_belong_to_the_decisions():
    goldens = load_goldens(RANDOM)
    for case in goldens.run.cases:
        ids, top = goldens.top(case)
        assert ids[:, 0].tolist() == list(case.decisions)
        assert np.allclose(top[:, 0] - top[:, 1], case.margins, atol=1e-6)
        columns, logits = goldens.logits(case)
        assert logits.shape == (len(case.decisions), len(columns))
        assert len(columns) >= 128
        assert logits.max() <= top[:, 0].max()


def test_some_cases_keep_the_whole_vocabulary():
    goldens = load_goldens(RANDOM)
    columns, logits = goldens.logits(goldens.case("hello"))
    assert len(columns) == goldens.run.vocab_size
    assert logits.argmax(axis=1).tolist() == list(goldens.case("hello").decisions)


def test_columns_and_top_agree_where_they_meet():
    goldens = load_goldens(RANDOM)
    case = goldens.case("story")
    columns, logits = goldens.logits(case)
    ids, top = goldens.top(case)
    met = 0
    for step in range(len(ids)):
        for column, value in zip(ids[step], top[step], strict=True):
            if column in columns:
                assert logits[step, np.searchsorted(columns, column)] == value
                met += 1
    assert met > 50


def test_rows_get_answered_cases_only_unless_asked():
    goldens = load_goldens(RANDOM)
    assert all(case.answered for case in goldens.for_row("F-QUAL-066"))
    assert {case.name for case in goldens.for_row("F-QUAL-066", answered_only=False)} >= {"sum_bare", "sum_raw"}
    assert goldens.forced_for_row("F-QUAL-070")[0].name == "forced_1000"
    assert len(goldens.forced("forced_1000").ids) == 1000


def test_reduced_precision_keeps_ids_and_top_only():
    goldens = load_goldens(RANDOM, "BF16")
    columns, logits = goldens.logits(goldens.case("story"))
    assert len(columns) == 0
    assert logits.size == 0
    assert goldens.top(goldens.case("story"))[0].shape[1] == 8


def test_unknown_case_is_a_key_error():
    with pytest.raises(KeyError):
        load_goldens(RANDOM).case("no such case")


def test_missing_goldens_say_how_to_make_them(tmp_path):
    with pytest.raises(GoldensMissing, match="falsify golden"):
        load_goldens(tmp_path)


def test_saving_again_gives_the_same_bytes(copy, tmp_path):
    goldens = load_goldens(copy)
    save_goldens(tmp_path / "again", goldens.run, goldens.arrays)
    for before, after in zip(golden_paths(RANDOM, "F32"), golden_paths(tmp_path / "again", "F32"), strict=True):
        assert before.read_bytes() == after.read_bytes()


def test_other_logits_beside_the_record_are_noticed(copy):
    golden_paths(copy, "F32")[1].write_bytes(golden_paths(RANDOM, "BF16")[1].read_bytes())
    with pytest.raises(GoldensCorrupt, match="written with"):
        load_goldens(copy)


def test_ids_that_contradict_the_logits_are_noticed(copy):
    def change(run):
        case = msgspec.structs.replace(run.cases[0], ids=(run.cases[0].ids[0] + 1, *run.cases[0].ids[1:]))
        return msgspec.structs.replace(run, cases=(case, *run.cases[1:]))

    rewrite(copy, change)
    with pytest.raises(GoldensCorrupt, match="chosen id"):
        load_goldens(copy)


def test_missing_step_is_noticed(copy):
    def change(run):
        case = msgspec.structs.replace(run.cases[0], ids=run.cases[0].ids[:-1])
        return msgspec.structs.replace(run, cases=(case, *run.cases[1:]))

    rewrite(copy, change)
    with pytest.raises(GoldensCorrupt, match="decisions"):
        load_goldens(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"cases": 3}', b"\xff\xfe"])
def test_unreadable_record_is_a_typed_error(copy, content):
    golden_paths(copy, "F32")[0].write_bytes(content)
    with pytest.raises(GoldensCorrupt):
        load_goldens(copy)


def test_pickled_arrays_are_refused(copy):
    goldens = load_goldens(copy)
    arrays = dict(goldens.arrays)
    path = golden_paths(copy, "F32")[1]
    arrays["columns"] = np.array([{"a": 1}], dtype=object)
    with path.open("wb") as file:
        np.savez(file, **arrays)
    rewrite(copy, lambda run: msgspec.structs.replace(run, arrays_sha256=_sha256(path)))
    with pytest.raises(GoldensCorrupt, match="pickle"):
        load_goldens(copy)


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_goldens_of_another_model_are_refused():
    with pytest.raises(GoldensForAnotherModel):
        load_goldens(RANDOM).require("0" * 64)
