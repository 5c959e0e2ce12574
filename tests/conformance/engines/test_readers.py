"""Readers that people ship, as real processes: what is installed reads a file bit for bit, and says what is wrong."""

import json
import shutil
import struct

import numpy as np
import pytest

from conformance.corpus.models import resolve_model
from conformance.manifest import EngineNotInstalled, load_manifest, require_installed
from conformance.protocol.client import Engine
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ErrorKind, FileOpen, FileRead, ModelLoad
from conformance.protocol.tensors import read_tensor
from conformance.smoke import smoke
from conformance.trial.launching import launch_in

READERS = (
    "safetensors-mmap", "safetensors-pread", "gguf-converter", "fastsafetensors", "tinygrad", "mlx",
    "runai-model-streamer", "huggingface-js",
)  # fmt: skip
HEADER = (
    b'{"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
)
PAYLOADS = {"w": np.array([1.5, np.nan], "<f4").tobytes(), "b": b"\x01\x00\x80\x7f\xc1\xff"}


def launch(name, tmp_path):
    manifest = load_manifest(name)
    try:
        require_installed(manifest)
    except EngineNotInstalled as lacking:
        pytest.skip(str(lacking))
    return launch_in(manifest, tmp_path / "exchange")


def small_file(tmp_path, header=HEADER):
    path = tmp_path / "small.safetensors"
    header = header.ljust(-(-len(header) // 8) * 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + PAYLOADS["w"] + PAYLOADS["b"])
    return path


@pytest.mark.parametrize("name", READERS)
def test_a_reader_passes_smoke(name, tmp_path):
    assert [step for step in smoke(launch(name, tmp_path)) if not step.ok] == []


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_every_byte_back(name, tmp_path):
    with Engine(launch(name, tmp_path)) as engine:
        file = engine.call("file.open", FileOpen(str(small_file(tmp_path))))
        entries = {entry.name: entry for entry in engine.call("file.inspect", file).tensors}
        read = {tensor: engine.call("file.read", FileRead(file.handle, tensor)) for tensor in entries}
        engine.call("file.close", file)

        assert {tensor: bytes(read_tensor(tmp_path / "exchange", data)) for tensor, data in read.items()} == PAYLOADS
        assert (entries["w"].dtype, entries["w"].shape) == ("F32", [1, 2])
        assert (entries["b"].dtype, entries["b"].shape) == ("BF16", [3])


@pytest.mark.parametrize("name", READERS)
def test_a_header_that_is_not_json_is_refused(name, tmp_path):
    with Engine(launch(name, tmp_path)) as engine:
        with pytest.raises(EngineRefused) as refused:
            engine.call("file.open", FileOpen(str(small_file(tmp_path, b"{not json"))))

        assert refused.value.kind == ErrorKind.INVALID_FILE


def test_transformers_answers_as_its_golden_run_did(tmp_path):
    from conformance.corpus.goldens import load_goldens
    from conformance.protocol.messages import Generate

    model = resolve_model("random")
    case = next(case for case in load_goldens(model.goldens_directory).run.cases if len(case.ids) > 1)
    with Engine(launch("transformers", tmp_path)) as engine:
        loaded = engine.call("model.load", ModelLoad(str(model.directory), "cpu", "F32"))
        answer = engine.call("generate", Generate(loaded.handle, case.max_tokens, prompt_ids=list(case.prompt_ids)))
        endless = engine.call("generate", Generate(loaded.handle, 9, prompt_ids=list(case.prompt_ids), ignore_eos=True))

        assert (answer.ids, answer.stop_id) == (list(case.ids), case.stop_id)
        assert len(endless.ids) == 9
        with pytest.raises(EngineRefused) as refused:
            engine.call("model.load", ModelLoad(str(model.directory), "cuda:99"))
        assert refused.value.kind == ErrorKind.DEVICE_NOT_FOUND


def test_transformers_refusal_of_a_config_is_about_the_model(tmp_path):
    source, copy = resolve_model("random").directory, tmp_path / "copy"
    shutil.copytree(source, copy)
    config = json.loads((copy / "config.json").read_text()) | {"hidden_size": "64"}
    (copy / "config.json").write_text(json.dumps(config))

    with Engine(launch("transformers", tmp_path)) as engine:
        with pytest.raises(EngineRefused) as refused:
            engine.call("model.load", ModelLoad(str(copy), "cpu", "F32"))

        assert refused.value.kind == ErrorKind.INVALID_MODEL
        assert "hidden_size" in refused.value.args[0]


def test_what_javascript_stumbles_over_is_no_refusal_and_the_reader_goes_on(tmp_path):
    short = tmp_path / "short.safetensors"
    short.write_bytes(b"abc")
    with Engine(launch("huggingface-js", tmp_path)) as engine:
        kinds = []
        for path in (short, tmp_path / "absent.safetensors"):
            with pytest.raises(EngineRefused) as refused:
                engine.call("file.open", FileOpen(str(path)))
            kinds.append(refused.value.kind)
        file = engine.call("file.open", FileOpen(str(small_file(tmp_path))))

        assert kinds == [ErrorKind.INTERNAL, ErrorKind.FILE_NOT_FOUND]
        assert engine.info.language == "javascript"
        assert len(engine.call("file.inspect", file).tensors) == 2
