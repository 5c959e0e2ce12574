"""Whether a model decodes by fused kernels; asked once a kind of model and device in a process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from reference_engine.decode import DecodeState
from reference_engine.errors import EngineError
from reference_engine.kernels.plan import plan_of, unsupported

if TYPE_CHECKING:
    from reference_engine.kernels.step import FusedStep
    from reference_engine.model import SafeTensorsCudaModel

# Volta and older lack what Triton's compiler asks for; dependent launch came with Hopper.
LEAST_CAPABILITY = (8, 0)
OVERLAP_CAPABILITY = (9, 0)
FUSED = "APR_FUSED"
"""0 lets torch decode, to compare."""


@dataclass(frozen=True)
class Choice:
    """The fused step, or None and why not."""

    step: FusedStep | None
    reason: str = ""


def fused_step(model: SafeTensorsCudaModel) -> Choice:
    """The fused step of a model, with every kernel loaded, where it knows the model and Triton works."""
    if os.environ.get(FUSED) == "0":
        return Choice(None, f"{FUSED}=0 asks for torch's kernels")
    capability = torch.cuda.get_device_capability(model.device.torch)
    reason = unsupported(model.config)
    if reason is not None or capability < LEAST_CAPABILITY:
        return Choice(None, reason or f"compute capability {capability[0]}.{capability[1]} is too old")
    if find_spec("triton") is None:
        return Choice(None, "Triton is not installed")
    plan = plan_of(model.weights.dtype.itemsize, overlap=capability >= OVERLAP_CAPABILITY)
    try:
        from reference_engine.kernels.step import FusedStep

        step = FusedStep(model.config, plan)
        step.load(model, DecodeState(model, 1, None, None), 1)
    except EngineError:
        raise
    except Exception as error:  # noqa: BLE001 - Triton, its compilers and the driver raise what they like
        return Choice(None, f"Triton does not work here: {type(error).__name__}")
    return Choice(step)
