"""mistral.rs as a real process: the fixture's goldens, and a checkpoint that it does not know."""

import json
import shutil

import pytest

from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import resolve_model
from conformance.manifest import load_manifest
from conformance.protocol.client import Engine
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ChatMessage, ErrorKind, Generate, ModelLoad
from conformance.smoke import smoke
from conformance.trial.launching import launch_in

pytest.importorskip("mistralrs")


def launch(tmp_path):
    return launch_in(load_manifest("mistralrs"), tmp_path / "exchange")


def test_it_passes_smoke(tmp_path):
    assert [step for step in smoke(launch(tmp_path)) if not step.ok] == []


def test_it_answers_as_the_golden_run(tmp_path):
    directory = resolve_model("fixture").directory
    cases = [case for case in load_goldens(directory).run.cases if case.prompt and not case.raw][:12]
    with Engine(launch(tmp_path)) as engine:
        model = engine.call("model.load", ModelLoad(str(directory), "cpu"))
        asked = [Generate(model.handle, case.max_tokens, messages=[ChatMessage("user", case.prompt)]) for case in cases]
        answers = [engine.call("generate", request) for request in asked]

    assert [answer.text for answer in answers] == [case.text for case in cases]
    assert [answer.prompt_tokens for answer in answers] == [len(case.prompt_ids) for case in cases]


@pytest.mark.parametrize("architectures", [["NoSuchModel"], [], None])
def test_a_model_that_it_does_not_know_is_refused(tmp_path, architectures):
    copy = tmp_path / "copy"
    shutil.copytree(resolve_model("fixture").directory, copy)
    config = json.loads((copy / "config.json").read_text()) | {"architectures": architectures}
    (copy / "config.json").write_text(json.dumps(config))
    with Engine(launch(tmp_path)) as engine, pytest.raises(EngineRefused) as refused:
        engine.call("model.load", ModelLoad(str(copy), "cpu"))

    assert refused.value.kind is ErrorKind.INVALID_MODEL
    assert "no architecture that the adapter knows" in str(refused.value)
