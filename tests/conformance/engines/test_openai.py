"""OpenAI-compatible servers: two real ones, and a small one that does every wrong thing."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import resolve_model
from conformance.manifest import PortTaken, load_manifest, require_installed
from conformance.protocol.client import Engine
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ChatMessage, ErrorKind, Generate, Handle, Logits, ModelLoad
from conformance.smoke import smoke
from conformance.trial.launching import launch_in

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests" / "engines" / "small_server.py"
REAL = ("llama-server", "transformers-serve")


def manifest_of(directory, mode, extra=""):
    # Those that never come up need not be waited for; the others start while many tests do.
    seconds = 1.5 if mode in {"unhealthy", "sleeps"} else 30
    path = directory / "small.toml"
    path.write_text(
        '[engine]\nname = "small"\n\n[driver]\n'
        'command = ["{python}", "-m", "conformance.engines.openai_engine", "{manifest}"]\n\n'
        f'[server]\ncommand = ["{{python}}", "{SMALL}", "{{port}}", "{mode}"]\nstartup_timeout_s = {seconds}\n{extra}'
    )
    return path


@contextmanager
def started(directory, mode, extra=""):
    with Engine(launch_in(load_manifest(str(manifest_of(directory, mode, extra))), directory / "exchange")) as engine:
        yield engine


def load():
    return ModelLoad(str(resolve_model("fixture").directory), "cpu")


def refusal(engine, method, params):
    with pytest.raises(EngineRefused) as refused:
        engine.call(method, params)
    return refused.value


def test_the_adapter_of_a_small_server_passes_smoke(tmp_path):
    launch = launch_in(load_manifest(str(manifest_of(tmp_path, "right"))), tmp_path / "exchange")

    assert [step for step in smoke(launch) if not step.ok] == []


def test_prompts_travel_as_text_or_as_ids_and_conversations_as_messages(tmp_path):
    with started(tmp_path, "right", "accepts_ids = true\n") as engine:
        model = engine.call("model.load", load())
        by_ids = engine.call("generate", Generate(model.handle, 4, prompt_ids=[5, 6]))
        chat = engine.call("generate", Generate(model.handle, 4, messages=[ChatMessage("user", "a cat")]))

    assert (by_ids.text, by_ids.prompt_tokens, by_ids.finish_reason, by_ids.stop_id) == ("[5, 6]", 2, "stop", None)
    assert chat.text == "a cat"


@pytest.mark.parametrize(
    ("mode", "ids"),
    [
        ("cut", [64, 429]),
        ("cut-untold", [64, 429]),
        ("cut-marked", [64, 429]),
        ("cut-otherwise", [64]),
        ("cut-refuses", [64]),
    ],
)
def test_ids_of_a_character_that_the_limit_cuts_are_learned_from_a_longer_answer(tmp_path, mode, ids):
    with started(tmp_path, mode) as engine:
        model = engine.call("model.load", load())
        answer = engine.call("generate", Generate(model.handle, 2, prompt="x"))
        whole = engine.call("generate", Generate(model.handle, 1, prompt="x"))

    assert (answer.ids, answer.text) == (ids, "a\ufffd" if mode == "cut-marked" else "a")
    assert len(whole.ids) == 3  # more than was asked for is told as it came


def test_unloading_ends_the_server_and_so_does_the_end_of_the_driver(tmp_path):
    with started(tmp_path, "right") as engine:
        first = engine.call("model.load", load())
        assert servers(tmp_path) == 1
        engine.call("model.unload", Handle(first.handle))
        assert servers(tmp_path) == 0
        engine.call("model.load", load())
    deadline = time.monotonic() + 10
    while servers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert servers(tmp_path) == 0


def servers(directory):
    """Server processes that run in the trial's directory."""
    count = 0
    for process in psutil.process_iter():
        try:
            count += str(SMALL) in process.cmdline() and process.cwd() == str(directory / "exchange")
        except psutil.Error:
            continue
    return count


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("unhealthy", ErrorKind.INVALID_MODEL, r"GET /health was not answered 200 within 1\.5 s"),
        ("sleeps", ErrorKind.INVALID_MODEL, r"GET /health was not answered 200 within 1\.5 s"),
        ("exits", ErrorKind.INVALID_MODEL, "ended with exit status 1; its last words: no model fits here"),
    ],
)
def test_a_server_that_does_not_come_up_is_refused_with_its_last_words(tmp_path, mode, kind, said):
    with started(tmp_path, mode) as engine:
        refused = refusal(engine, "model.load", load())
        assert refused.kind is kind
        assert re.search(said, str(refused))
        assert servers(tmp_path) == 0


@pytest.mark.parametrize(
    ("mode", "kind", "said"),
    [
        ("refuses", ErrorKind.INVALID_ARGUMENT, "was answered 400"),
        ("breaks", ErrorKind.INTERNAL, "was answered 500: <html>"),
        ("short", ErrorKind.INTERNAL, "was answered 200: no"),
        ("dies", ErrorKind.INVALID_MODEL, "exit status 7; its last words: out of luck"),
    ],
)
def test_a_wrong_answer_is_told_by_its_kind(tmp_path, mode, kind, said):
    with started(tmp_path, mode) as engine:
        model = engine.call("model.load", load())
        refused = refusal(engine, "generate", Generate(model.handle, 2, prompt="x"))

    assert refused.kind is kind
    assert said in str(refused)


@pytest.mark.parametrize(
    ("method", "params_of", "kind"),
    [
        ("model.load", lambda model, path: ModelLoad(str(path / "absent"), "cpu"), ErrorKind.FILE_NOT_FOUND),
        ("model.load", lambda model, path: ModelLoad(str(path), "cpu"), ErrorKind.INVALID_MODEL),
        ("model.load", lambda model, path: ModelLoad(str(path), "cuda:0"), ErrorKind.DEVICE_NOT_FOUND),
        ("model.logits", lambda model, path: Logits(model, [1]), ErrorKind.NOT_SUPPORTED),
        ("generate", lambda model, path: Generate(model, 1), ErrorKind.INVALID_ARGUMENT),
        ("generate", lambda model, path: Generate(model, 1, prompt="x", repeat=0), ErrorKind.INVALID_ARGUMENT),
        ("generate", lambda model, path: Generate(model, 1, prompt="x", ignore_eos=True), ErrorKind.NOT_SUPPORTED),
        ("generate", lambda model, path: Generate(77, 1, prompt="x"), ErrorKind.CLOSED_HANDLE),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_kind(tmp_path, method, params_of, kind):
    with started(tmp_path, "right") as engine:
        model = engine.call("model.load", load())

        assert refusal(engine, method, params_of(model.handle, tmp_path)).kind is kind


def test_a_port_that_is_taken_ends_the_trial_before_it_begins(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        manifest = manifest_of(tmp_path, "right", f"port = {port}\n")
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken"):
            require_installed(load_manifest(str(manifest)))
        command = [
            sys.executable,
            "-m",
            "conformance",
            "run",
            "--engine",
            str(manifest),
            "--out",
            str(tmp_path / "out"),
        ]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

        assert (done.returncode, done.stdout) == (2, "")
        assert f"falsify: engine 'small': port {port} on 127.0.0.1 is taken" in done.stderr


def test_a_port_that_is_taken_later_is_told_too(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with started(tmp_path, "right", f"port = {port}\n") as engine:
            other.listen()
            assert f"port {port} on 127.0.0.1 is taken" in str(refusal(engine, "model.load", load()))


def test_a_manifest_without_a_server_starts_nothing(tmp_path):
    path = tmp_path / "none.toml"
    path.write_text('[engine]\nname = "none"\n')
    command = [sys.executable, "-m", "conformance.engines.openai_engine", str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert "no [server] table: no server to start" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_server_answers_as_the_golden_run(name, tmp_path):
    manifest = load_manifest(name)
    for module in manifest.manifest.engine.requires:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    goldens = load_goldens(resolve_model("fixture").directory)
    with Engine(launch_in(manifest, tmp_path / "exchange")) as engine:
        model = engine.call("model.load", load(), timeout=180)
        for case in [one for one in goldens.run.cases if one.prompt][:8]:
            turns = None if case.raw else [ChatMessage("user", case.prompt)]
            ids = list(case.prompt_ids) if case.raw else None
            answer = engine.call("generate", Generate(model.handle, case.max_tokens, prompt_ids=ids, messages=turns))

            assert (answer.text, answer.ids, answer.prompt_tokens) == (case.text, list(case.ids), len(case.prompt_ids))
            assert answer.finish_reason == ("length" if case.stop_id is None else "stop")
