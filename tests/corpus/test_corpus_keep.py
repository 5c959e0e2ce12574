import json
from dataclasses import replace

import pytest
from corpus_engine import InProcess
from corpus_parsers import Aligned, NoTail, Refusing

from conformance.corpus.safetensors.classes import RandomSource, sha256
from conformance.corpus.safetensors.export import NotEmpty, export
from conformance.corpus.safetensors.hunt import hunt
from conformance.corpus.safetensors.keep import NotAKeptCase, keep, load
from conformance.corpus.safetensors.oracle import first_difference, official
from conformance.corpus.safetensors.probe import Prober
from conformance.corpus.safetensors.registry import BY_NAME, CLASSES
from conformance.corpus.safetensors.rules import Demand


def failure_of(parser, name, tmp_path):
    failure = hunt(BY_NAME[name], Prober(InProcess(parser, tmp_path), tmp_path).try_bytes).failure
    return BY_NAME[name], failure


def test_kept_file_shows_what_was_changed_and_is_refused_again(tmp_path):
    found, failure = failure_of(NoTail(), "offsets.trailing_bytes", tmp_path)
    record = keep(tmp_path / "kept", found, failure, seed=5, command="falsify replay X")
    kept, data, control = load(tmp_path / "kept" / record.file)
    assert sha256(data) == record.sha256 == kept.sha256
    assert official(control).accepted
    assert (kept.how, kept.seed, kept.command) == ("wrong_accept", 5, "falsify replay X")
    assert kept.changed == [(len(control), len(data))]
    assert kept.observed.startswith("accepted: ")
    assert kept.rule
    assert kept.summary


def test_kept_misread_carries_what_would_have_been_right(tmp_path):
    found, failure = failure_of(Aligned(), "containers.header_length_odd", tmp_path)
    record = keep(tmp_path / "kept", found, failure, seed=0, command="")
    kept, data, _ = load((tmp_path / "kept" / record.file).with_suffix(".json"))
    right = official(data).contents
    assert {t.name: t.sha256 for t in kept.readings[0].tensors} == {
        name: sha256(tensor.payload) for name, tensor in right.tensors.items()
    }


def test_kept_control_is_a_valid_file(tmp_path):
    found, failure = failure_of(Refusing(), "offsets.trailing_bytes", tmp_path)
    record = keep(tmp_path / "kept", found, failure, seed=0, command="")
    kept, data, control = load(tmp_path / "kept" / record.file)
    assert kept.of_control
    assert kept.demand is Demand.ACCEPT
    assert data == control


@pytest.mark.parametrize("harm", ["missing", "garbled", "other", "escape"])
def test_file_without_a_true_sidecar_is_no_kept_case(tmp_path, harm):
    found, failure = failure_of(NoTail(), "offsets.trailing_bytes", tmp_path)
    record = keep(tmp_path / "kept", found, failure, seed=0, command="")
    path = tmp_path / "kept" / record.file
    sidecar = path.with_suffix(".json")
    if harm == "missing":
        sidecar.unlink()
    elif harm == "garbled":
        sidecar.write_bytes(b"{")
    elif harm == "other":
        path.write_bytes(b"other")
    else:
        told = json.loads(sidecar.read_text())
        sidecar.write_text(json.dumps({**told, "control": "../../secret"}))
    with pytest.raises(NotAKeptCase):
        load(path)


# --- export -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "corpus"
    export(directory, seed=1, examples=2)
    return directory, json.loads((directory / "verdicts.json").read_text())


def test_export_holds_every_class_with_its_control(exported):
    directory, verdicts = exported
    assert {row["case_class"] for row in verdicts["files"]} == set(BY_NAME)
    assert len(verdicts["files"]) == 2 * len(CLASSES)
    controls = {row["file"]: row for row in verdicts["controls"]}
    for row in [*verdicts["files"], *verdicts["controls"]]:
        data = (directory / row["file"]).read_bytes()
        assert (sha256(data), len(data)) == (row["sha256"], row["bytes"])
    assert all(row["control"] in controls for row in verdicts["files"])
    on_disk = {str(path.relative_to(directory)) for path in directory.rglob("*.safetensors")}
    assert on_disk == controls.keys() | {row["file"] for row in verdicts["files"]}


def test_exported_verdicts_agree_with_the_official_library_up_to_what_they_say(exported):
    directory, verdicts = exported
    for row in verdicts["files"]:
        answer = official((directory / row["file"]).read_bytes())
        assert answer.accepted == (row["official"] == "accepts")
        assert row["rule"]
        assert (row["demand"] == "accept") <= answer.accepted
        assert (row["demand"] == "reject") <= ("readings" not in row)


def test_export_is_repeatable_and_seeds_differ(exported, tmp_path):
    directory, _ = exported
    classes = CLASSES[:3]
    for name, seed in (("same", 1), ("other", 2)):
        export(tmp_path / name, seed=seed, examples=2, classes=classes)
    file = f"{classes[0].family}/{classes[0].name.partition('.')[2]}-1.safetensors"
    assert (tmp_path / "same" / file).read_bytes() == (directory / file).read_bytes()
    assert (tmp_path / "other" / file).read_bytes() != (directory / file).read_bytes()


def test_export_refuses_a_directory_with_files(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(NotEmpty):
        export(tmp_path)


# --- the comparison that every verdict rests on -------------------------------------------------------


def changed(contents, **fields):
    name, tensor = next(iter(contents.tensors.items()))
    return replace(contents, tensors={**contents.tensors, name: replace(tensor, **fields)})


def test_first_difference_names_each_kind():
    case = BY_NAME["keyvalue.ordinary"].build(RandomSource(1))
    right = case.readings[0]
    name, tensor = next(iter(right.tensors.items()))
    flipped = bytes([tensor.payload[0] ^ 1]) + tensor.payload[1:]
    without = {key: value for key, value in right.tensors.items() if key != name}
    assert first_difference(right, right) == ""
    assert "dtype 'U8'" in first_difference(right, changed(right, dtype="U8"))
    assert "shape" in first_difference(right, changed(right, shape=(1, *tensor.shape)))
    assert "begin" in first_difference(right, changed(right, begin=tensor.begin + 1))
    assert first_difference(right, changed(right, begin=-1)) == ""
    assert "byte 0" in first_difference(right, changed(right, payload=flipped))
    assert "bytes, not" in first_difference(right, changed(right, payload=tensor.payload[1:]))
    assert "is missing" in first_difference(right, replace(right, tensors=without))
    assert "is not in the file" in first_difference(replace(right, tensors=without), right)
    assert "metadata 'format'" in first_difference(right, replace(right, metadata={}))
