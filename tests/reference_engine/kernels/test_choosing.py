"""Who decodes: the fused kernels where they know the model and Triton works, else torch, with the reason."""

from __future__ import annotations

import dataclasses
import sys

import msgspec
import pytest
import torch

from reference_engine.decode import torch_step
from reference_engine.device import Device
from reference_engine.kernels import choosing
from reference_engine.kernels.plan import F32, HALF, Split, plan_of
from reference_engine.model import SafeTensorsCudaModel
from reference_engine.warmup import warming_up


@pytest.fixture
def model(make, tmp_path, monkeypatch):
    monkeypatch.delenv(choosing.FUSED, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    return SafeTensorsCudaModel.from_safetensors(make("tied", tmp_path), Device(0, "cpu"))


def test_a_cpu_decodes_by_torch_and_waits_for_nothing(model):
    with warming_up(model, None):
        pass
    assert model.decoder.step is torch_step
    assert not model.decoder.declined


def test_a_model_of_the_common_block_takes_the_fused_step(model, monkeypatch):
    step = pytest.importorskip("reference_engine.kernels.step", reason="Triton is made for Linux")
    compiled = []
    monkeypatch.setattr(step.FusedStep, "load", lambda self, *_: compiled.append(self.plan))
    choice = choosing.fused_step(model)
    assert isinstance(choice.step, step.FusedStep)
    assert compiled == [F32]
    model.decoder.use(choice)
    assert model.decoder.step is choice.step
    assert model.decoder.advance == choice.step.advance
    assert not model.decoder.declined


@pytest.mark.parametrize(
    "change", [{"out_bias": True}, {"mlp_bias": True}, {"qk_norm": True}, {"windows": (None, 8, None)}]
)
def test_what_the_kernels_do_not_know_is_declined(model, change):
    model.config = msgspec.structs.replace(model.config, **change)
    choice = choosing.fused_step(model)
    assert choice.step is None
    assert "do not know" in choice.reason
    model.decoder.use(choice)
    assert model.decoder.step is torch_step
    assert model.decoder.declined == choice.reason


def test_old_devices_are_declined(model, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (7, 5))
    assert choosing.fused_step(model) == choosing.Choice(None, "compute capability 7.5 is too old")


def test_without_triton_torch_decodes(model, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("attention", "linear", "loading", "overlap", "step", "tokens", "toolchain"):
        monkeypatch.delitem(sys.modules, f"reference_engine.kernels.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    choice = choosing.fused_step(model)
    assert choice.step is None
    assert choice.reason == "Triton is not installed"


def test_a_compiler_that_fails_is_declined(model, monkeypatch):
    step = pytest.importorskip("reference_engine.kernels.step", reason="Triton is made for Linux")

    def fail(*_):
        raise OSError("no C compiler")

    monkeypatch.setattr(step.FusedStep, "load", fail)
    assert choosing.fused_step(model) == choosing.Choice(None, "Triton does not work here: OSError")


def test_dependent_launch_is_for_devices_that_have_it():
    assert plan_of(4, overlap=True) == F32
    assert plan_of(2, overlap=True) == HALF
    assert plan_of(4, overlap=False) == dataclasses.replace(F32, overlap=False)


@pytest.mark.parametrize(("shared", "heads", "expected"), [(6, 4, 3), (6, 1, 1), (7, 4, 1), (8, 4, 4), (1, 4, 1)])
def test_heads_of_a_program_divide_those_that_share(shared, heads, expected):
    assert Split(64, heads, 4).per_program(shared) == expected


def test_who_asks_for_it_decodes_by_torch(model, monkeypatch):
    monkeypatch.setenv(choosing.FUSED, "0")
    assert choosing.fused_step(model) == choosing.Choice(None, "APR_FUSED=0 asks for torch's kernels")
