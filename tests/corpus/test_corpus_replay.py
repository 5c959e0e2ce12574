import json

import pytest
from corpus_engine import InProcess
from corpus_parsers import Aligned, NoHoles, Refusing, Strict, Vague

from conformance.cli import app
from conformance.corpus.safetensors.findings import How
from conformance.corpus.safetensors.hunt import hunt
from conformance.corpus.safetensors.keep import keep
from conformance.corpus.safetensors.probe import Prober
from conformance.corpus.safetensors.registry import BY_NAME
from conformance.corpus.safetensors.replay import Answer, kept_files, replay


def kept_by(parser, name, tmp_path):
    failure = hunt(BY_NAME[name], prober(parser, tmp_path).try_bytes).failure
    return tmp_path / "kept" / keep(tmp_path / "kept", BY_NAME[name], failure, seed=0, command="").file


def prober(parser, tmp_path):
    return Prober(InProcess(parser, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("parser", "name"), [(NoHoles, "offsets.hole"), (Aligned, "containers.header_length_odd"), (Vague, "offsets.hole")]
)
def test_replay_fails_on_the_engine_that_failed_and_not_on_a_right_one(parser, name, tmp_path):
    path = kept_by(parser(), name, tmp_path)
    assert replay(path, prober(parser(), tmp_path)).answer is Answer.FAILED
    assert replay(path, prober(Strict(), tmp_path)).answer is Answer.FIXED
    assert replay(path.with_suffix(".json"), prober(Strict(), tmp_path)).answer is Answer.FIXED


def test_refusing_everything_fixes_nothing(tmp_path):
    again = replay(kept_by(NoHoles(), "offsets.hole", tmp_path), prober(Refusing(), tmp_path))
    assert again.answer is Answer.FAILED
    assert How.WRONG_REJECT in again.detail


def test_what_is_no_kept_case_is_an_error(tmp_path):
    path = kept_by(NoHoles(), "offsets.hole", tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    assert replay(path, prober(Strict(), tmp_path)).answer is Answer.ERROR


def test_directories_are_searched_for_sidecars_only(tmp_path):
    path = kept_by(NoHoles(), "offsets.hole", tmp_path)
    (tmp_path / "kept" / "other.json").write_text("{}")
    assert list(kept_files([tmp_path])) == [path.with_suffix(".json")]


def run_cli(*words):
    from typer.testing import CliRunner

    return CliRunner().invoke(app, list(map(str, words)))


def test_export_writes_the_same_corpus_for_the_same_seed_and_never_over_another(tmp_path):
    assert run_cli("corpus", "export", tmp_path / "a", "--seed", 3).exit_code == 0
    assert run_cli("corpus", "export", tmp_path / "b", "--seed", 3).exit_code == 0
    assert (tmp_path / "a" / "verdicts.json").read_bytes() == (tmp_path / "b" / "verdicts.json").read_bytes()
    assert json.loads((tmp_path / "a" / "verdicts.json").read_text())["seed"] == 3
    assert run_cli("corpus", "export", tmp_path / "a").exit_code == 2


def test_replay_ends_with_the_codes_of_the_contract(tmp_path):
    path = kept_by(NoHoles(), "offsets.hole", tmp_path)
    assert run_cli("replay", path).exit_code == 0
    path.write_bytes(b"another")
    assert run_cli("replay", path).exit_code == 4
    assert run_cli("replay", tmp_path / "nothing").exit_code == 2
    (tmp_path / "empty").mkdir()
    assert run_cli("replay", tmp_path / "empty").exit_code == 2


def test_an_engine_that_does_not_start_fixes_nothing_and_fails_nothing(tmp_path):
    path = kept_by(NoHoles(), "offsets.hole", tmp_path)
    manifest = tmp_path / "dead.toml"
    manifest.write_text('[engine]\nname = "dead"\n[driver]\ncommand = ["false"]\n')

    done = run_cli("replay", path.parent, "--engine", manifest)

    assert done.exit_code == 4
    assert done.output.startswith("ERROR ")
    assert "did not start" in done.output
