"""What the first request would wait for, done while the weights arrive: kernels loaded, libraries set up.

Two threads run beside the load, over the memory that the weights are on their way to: what it holds meanwhile does not
matter. One loads the fused kernels, the other pushes a short prompt. Models of the same kind on the same device share
the outcome.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from reference_engine.config import ModelConfig
from reference_engine.errors import EngineError
from reference_engine.generate import best_id
from reference_engine.kernels.choosing import Choice, fused_step

if TYPE_CHECKING:
    from reference_engine.model import SafeTensorsCudaModel

PROMPT = 32
SWITCH_SECONDS = 1e-4
_chosen: dict[tuple[ModelConfig, torch.dtype, int], Choice] = {}


@contextmanager
def warming_up(model: SafeTensorsCudaModel, id_limit: int | None) -> Iterator[None]:
    """Choose how the model decodes, and push a prompt through it, on threads beside the block.

    On the CPU, and where it was done before, there is nothing to wait for.
    """
    key = (model.config, model.weights.dtype, model.device.index)
    if not model.device.is_cuda or key in _chosen:
        yield
    else:
        interval = sys.getswitchinterval()
        # Readers of the file need the interpreter for microseconds, and must not wait milliseconds for it.
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            with ThreadPoolExecutor(2, initializer=torch.cuda.set_device, initargs=(model.device.torch,)) as pool:
                choice, prompt = pool.submit(fused_step, model), pool.submit(_push_prompt, model, id_limit)
                yield
            # Where memory runs out the load, or the first request, is the one to tell, and the next load tries again.
            with suppress(EngineError):
                prompt.result()
                _chosen[key] = choice.result()
        finally:
            sys.setswitchinterval(interval)
    if model.device.is_cuda:
        model.decoder.use(_chosen.get(key, Choice(None, "there was no memory to try")))


def _push_prompt(model: SafeTensorsCudaModel, id_limit: int | None) -> None:
    """Twice: a graph is recorded at its second use. The memory stays for the first request that fits it."""
    prompt = [0] * min(PROMPT, model.config.max_positions)
    with model.device.guard():
        for _ in range(2):
            with model.decoder.begin(model, prompt, len(prompt), id_limit) as decoding, suppress(EngineError):
                # There may be anything in the weights, also what is not a number.
                best_id(decoding.logits[: decoding.id_limit], 0)
        model.device.synchronize()
