"""The adapter of the reference engine, method by method, in process."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conformance.engines import reference
from conformance.engines.handles import HandleTable, UnknownHandle
from conformance.engines.reference import ERROR_KINDS, ReferenceEngine
from conformance.protocol import messages as m
from conformance.protocol.tensors import BrokenTensor, read_tensor, to_numpy, write_tensor
from reference_engine import errors

VALUES = np.arange(24, dtype="<f4").reshape(4, 6)


@pytest.fixture
def engine(tmp_path):
    adapter = ReferenceEngine()
    info = adapter.initialize(m.Initialize(str(tmp_path), threads=1))
    assert info.precision == "ieee_f32"
    return adapter


@pytest.fixture
def device(engine):
    opened = engine.device_open(m.DeviceOpen(0, "cpu"))
    assert opened.info.total_bytes > 0
    yield opened.handle
    engine.device_close(m.Handle(opened.handle))


def send(tmp_path, array, dtype="F32"):
    return write_tensor(tmp_path, dtype, array.shape, array.tobytes())


def receive(tmp_path, data):
    return to_numpy(data, read_tensor(tmp_path, data))


def kind_of(engine, call, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the kind is what is looked at
        call(*arguments)
    described = engine.describe_error(caught.value)
    return described.kind if described else None


def test_every_method_of_the_protocol_is_there_with_its_types():
    for name, method in m.METHODS.items():
        if name in {"ping", "shutdown"}:
            continue
        handler = getattr(ReferenceEngine, name.replace(".", "_"))
        told = inspect.signature(handler, eval_str=False)
        parameter = list(told.parameters.values())[1]
        assert parameter.annotation == f"m.{method.params.__name__}"
        assert told.return_annotation == ("None" if method.result is m.Empty else f"m.{method.result.__name__}")


def test_every_engine_error_has_a_kind():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EngineError)]
    assert set(kinds) - {errors.EngineError} == set(ERROR_KINDS)
    assert ReferenceEngine().describe_error(ValueError("x")) is None


def test_file_life(engine, tmp_path):
    save_file({"w": torch.from_numpy(VALUES.copy())}, tmp_path / "f.safetensors", metadata={"k": "v"})
    handle = engine.file_open(m.FileOpen(str(tmp_path / "f.safetensors"))).handle
    contents = engine.file_inspect(m.Handle(handle))
    assert contents.metadata == {"k": "v"}
    assert contents.tensors == [m.TensorEntry("w", "F32", [4, 6], 0, 96)]
    assert np.array_equal(receive(tmp_path, engine.file_read(m.FileRead(handle, "w"))), VALUES)
    assert kind_of(engine, engine.file_read, m.FileRead(handle, "x")) == m.ErrorKind.INVALID_ARGUMENT
    engine.file_close(m.Handle(handle))
    assert kind_of(engine, engine.file_inspect, m.Handle(handle)) == m.ErrorKind.CLOSED_HANDLE
    absent = m.FileOpen(str(tmp_path / "absent"))
    assert kind_of(engine, engine.file_open, absent) == m.ErrorKind.FILE_NOT_FOUND


def test_upload_download_convert_drop_and_account(engine, device, tmp_path):
    bits = np.arange(65536, dtype="<u2")
    for pinned in (False, True):
        for asynchronous in (False, True):
            upload = m.Upload(device, [send(tmp_path, VALUES), send(tmp_path, bits, "BF16")], pinned, asynchronous)
            handles = engine.storage_upload(upload).handles
            engine.device_synchronize(m.Handle(device))
            assert engine.storage_account(m.Handle(device)) == m.Account(96 + 131072, 2)
            assert np.array_equal(receive(tmp_path, engine.storage_download(m.Handle(handles[0]))), VALUES)
            assert np.array_equal(receive(tmp_path, engine.storage_download(m.Handle(handles[1]))), bits)
            wide = engine.storage_convert(m.Convert(handles[1], "F32")).handle
            found = receive(tmp_path, engine.storage_download(m.Handle(wide))).view("<u4")
            assert np.array_equal(found, bits.astype("<u4") << 16)
            engine.storage_drop(m.Drop([*handles, wide]))
            assert engine.storage_account(m.Handle(device)) == m.Account(0, 0)
            assert kind_of(engine, engine.storage_download, m.Handle(wide)) == m.ErrorKind.CLOSED_HANDLE
            assert kind_of(engine, engine.storage_drop, m.Drop([wide])) == m.ErrorKind.CLOSED_HANDLE


def test_staged_upload(engine, device, tmp_path):
    staged = engine.storage_stage(m.Stage(device, [send(tmp_path, VALUES)])).handle
    engine.storage_upload_staged(m.UploadStaged(staged, 3))
    engine.storage_drop(m.Drop([staged]))
    assert kind_of(engine, engine.storage_upload_staged, m.UploadStaged(staged)) == m.ErrorKind.CLOSED_HANDLE
    assert engine.storage_account(m.Handle(device)).live_bytes == 0


def test_buffers_count_in_the_devices_memory(engine, device):
    buffer = engine.device_allocate(m.Allocate(device, 1 << 20)).handle
    assert engine.device_memory(m.Handle(device)).allocated_bytes == 1 << 20
    engine.device_free(m.Handle(buffer))
    assert engine.device_memory(m.Handle(device)).allocated_bytes == 0
    assert kind_of(engine, engine.device_free, m.Handle(buffer)) == m.ErrorKind.CLOSED_HANDLE
    assert kind_of(engine, engine.device_allocate, m.Allocate(device, 1 << 60)) == m.ErrorKind.OUT_OF_MEMORY
    assert kind_of(engine, engine.device_allocate, m.Allocate(device, -1)) == m.ErrorKind.INVALID_ARGUMENT


def test_product_and_streams(engine, device, tmp_path):
    product = engine.device_matmul(m.MatMul(device, send(tmp_path, VALUES), send(tmp_path, VALUES.T.copy())))
    assert np.array_equal(receive(tmp_path, product), VALUES @ VALUES.T)
    wrong = m.MatMul(device, send(tmp_path, VALUES), send(tmp_path, VALUES))
    assert kind_of(engine, engine.device_matmul, wrong) == m.ErrorKind.INVALID_ARGUMENT
    arrived = engine.device_copy_across_streams(m.CopyAcrossStreams(device, send(tmp_path, VALUES), 5))
    assert np.array_equal(receive(tmp_path, arrived), VALUES)
    assert engine.storage_account(m.Handle(device)).live_bytes == 0
    engine.device_enqueue(m.Enqueue(device, 1.0))


def test_closing_a_device_releases_what_is_on_it(engine, tmp_path):
    opened = engine.device_open(m.DeviceOpen(0, "cpu"))
    handle = engine.storage_upload(m.Upload(opened.handle, [send(tmp_path, VALUES)])).handles[0]
    engine.device_close(m.Handle(opened.handle))
    assert kind_of(engine, engine.storage_download, m.Handle(handle)) == m.ErrorKind.CLOSED_HANDLE
    assert kind_of(engine, engine.device_memory, m.Handle(opened.handle)) == m.ErrorKind.CLOSED_HANDLE


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_machine_without_a_gpu(engine):
    assert engine.device_list(m.Empty()).devices == []
    assert kind_of(engine, engine.device_open, m.DeviceOpen(0)) == m.ErrorKind.DEVICE_NOT_FOUND


def test_load_file(engine, device, tmp_path):
    save_file({"w": torch.from_numpy(VALUES.copy()), "h": torch.ones(3).half()}, tmp_path / "f.safetensors")
    loaded = engine.storage_load_file(m.LoadFile(device, str(tmp_path / "f.safetensors")))
    assert loaded.type_name == "reference_engine.storage.CudaStorage"
    assert (loaded.tensors["w"].dtype, loaded.tensors["w"].shape, loaded.tensors["h"].dtype) == ("F32", [4, 6], "F16")
    save_file({"i": torch.ones(3, dtype=torch.int32)}, tmp_path / "i.safetensors")
    refused = m.LoadFile(device, str(tmp_path / "i.safetensors"))
    assert kind_of(engine, engine.storage_load_file, refused) == m.ErrorKind.UNSUPPORTED_DTYPE


def test_model_life(engine, tiny_checkpoint, tmp_path):
    loaded = engine.model_load(m.ModelLoad(str(tiny_checkpoint), "cpu"))
    assert loaded.type_name == "reference_engine.model.SafeTensorsCudaModel"
    assert loaded.storage_type_name == "reference_engine.storage.CudaStorage"
    assert (loaded.used_gpu, loaded.config.rope_theta, loaded.config.eos_token_ids) == (False, 1e6, [2, 0])
    model = loaded.handle
    assert len(engine.model_tensors(m.Handle(model)).tensors) == 3 * 12 + 2
    logits = receive(tmp_path, engine.model_logits(m.Logits(model, [1, 2, 3], 2)))
    assert logits.shape == (2, 517)
    ids = engine.tokenizer_encode(m.Encode(model, "hello")).ids
    assert engine.tokenizer_decode(m.Decode(model, ids)).text == "hello"
    rendered = engine.chat_render(m.Render(model, [m.ChatMessage("user", "hello")]))
    by_ids = engine.generate(m.Generate(model, 6, prompt_ids=rendered.ids, ignore_eos=True, repeat=2))
    by_chat = engine.generate(m.Generate(model, 6, messages=[m.ChatMessage("user", "hello")], ignore_eos=True))
    assert by_ids == by_chat
    assert by_ids.positions == len(rendered.ids) + 5
    assert engine.generate(m.Generate(model, 2, prompt="hello", ignore_eos=True)).prompt_tokens == len(ids)
    for bad in (
        m.Generate(model, 2),
        m.Generate(model, 2, prompt_ids=[1], prompt="x"),
        m.Generate(model, 2, [1], repeat=0),
    ):
        assert kind_of(engine, engine.generate, bad) == m.ErrorKind.INVALID_ARGUMENT
    engine.model_unload(m.Handle(model))
    assert kind_of(engine, engine.model_logits, m.Logits(model, [1])) == m.ErrorKind.CLOSED_HANDLE
    for device in ("cpu:7", "tpu"):
        assert kind_of(engine, engine.model_load, m.ModelLoad(str(tiny_checkpoint), device)) is not None


def test_file_capability_does_not_import_torch():
    program = (
        "import sys\nfrom conformance.engines.reference import ReferenceEngine\n"
        "from conformance.protocol.messages import *\n"
        "e = ReferenceEngine(); e.initialize(Initialize('/tmp'))\n"
        "try: e.file_open(FileOpen('/absent'))\nexcept Exception as error: assert e.describe_error(error)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_roles_of_the_manifest_resolve():
    manifest = tomllib.loads(Path(reference.__file__).with_suffix(".toml").read_text())
    for role in manifest["roles"].values():
        module, _, path = role.partition(":")
        found = __import__(module, fromlist=["x"])
        for attribute in path.split("."):
            found = getattr(found, attribute)
        assert callable(found)


# --- tensor files and handles -----------------------------------------------------------------------------


def test_tensor_files_are_checked(tmp_path):
    data = send(tmp_path, VALUES)
    assert read_tensor(tmp_path, data) == VALUES.tobytes()
    path = Path(data.path)
    path.write_bytes(VALUES.tobytes()[:-1])
    with pytest.raises(BrokenTensor, match="bytes"):
        read_tensor(tmp_path, data)
    path.write_bytes(b"\1" + VALUES.tobytes()[1:])
    with pytest.raises(BrokenTensor, match="sha256"):
        read_tensor(tmp_path, data)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(BrokenTensor):
        read_tensor(tmp_path, data)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BrokenTensor):
        read_tensor(tmp_path, data)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "absent"])
def test_tensor_files_elsewhere_are_refused(tmp_path, path):
    with pytest.raises(BrokenTensor):
        read_tensor(tmp_path / "run", m.TensorData(path, "U8", [1], 1, ""))


def test_shape_must_fit_the_bytes(tmp_path):
    data = send(tmp_path, VALUES)
    for changed in ({"shape": [5, 6]}, {"shape": [-4, -6]}, {"dtype": "F13"}):
        fields = {"path": data.path, "dtype": "F32", "shape": [4, 6], "nbytes": 96, "sha256": data.sha256} | changed
        with pytest.raises(BrokenTensor):
            to_numpy(m.TensorData(**fields), bytes(96))


def test_handles_are_never_used_twice():
    table = HandleTable()
    first = table.hold("a")
    table.take(first, str)
    assert table.hold("b") != first
    for handle, kind in ((first, str), (first + 1, int), (99, str)):
        with pytest.raises(UnknownHandle):
            table.get(handle, kind)
