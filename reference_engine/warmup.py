"""What the first request would wait for, done while the weights arrive: kernels compiled and loaded, cuBLAS set up.

A thread runs what requests run, over the memory that the weights are on their way to: what it holds meanwhile does
not matter. Models of the same kind on the same device share the outcome.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from reference_engine.errors import EngineError
from reference_engine.kernels.choosing import Choice, fused_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from reference_engine.config import ModelConfig
    from reference_engine.model import SafeTensorsCudaModel

# Lengths and repeats. Libraries have kernels of their own for few and for many rows; a graph is recorded at its second
# use, and the memory of the last stays for the first request.
PROMPTS = ((1000, 1), (32, 2))
SWITCH_SECONDS = 1e-4
_chosen: dict[tuple[ModelConfig, torch.dtype, int], Choice] = {}


@contextmanager
def warming_up(model: SafeTensorsCudaModel, id_limit: int | None) -> Iterator[None]:
    """Choose how the model decodes, on a thread beside the block, and run a prefill and a step that way.

    On the CPU, and where it was done before, there is nothing to wait for.
    """
    key = (model.config, model.weights.dtype, model.device.index)
    if not model.device.is_cuda:
        yield
        return
    thread = threading.Thread(target=_first_run, args=(model, key, id_limit), name="warm-up", daemon=True)
    interval = sys.getswitchinterval()
    if key not in _chosen:
        # Readers of the file need the interpreter for microseconds, and must not wait milliseconds for it.
        sys.setswitchinterval(SWITCH_SECONDS)
        thread.start()
    try:
        yield
    finally:
        if thread.ident is not None:
            thread.join()
            sys.setswitchinterval(interval)
        # Where memory ran out, the next load tries again.
        model.decoder.use(_chosen.get(key, Choice(None, "there was no memory to try")))


def _first_run(model: SafeTensorsCudaModel, key: tuple[ModelConfig, torch.dtype, int], id_limit: int | None) -> None:
    # A failure of memory or device is told by the load itself, or by the first request.
    with suppress(EngineError), model.device.guard():
        choice = fused_step(model)
        model.decoder.use(choice)
        for length, repeats in PROMPTS:
            model.decoder.release()
            prompt = [0] * min(length, model.config.max_positions - 1)
            for _ in range(repeats):
                with model.decoder.begin(model, prompt, len(prompt) + 1, id_limit) as decoding:
                    decoding.feed(0)
                    decoding.step()
        model.device.synchronize()
        _chosen[key] = choice
