"""CUDA graphs: a step's kernels recorded once and launched as one, so that the host's pace no longer matters.

One graph per attention length, and per length of a short prompt, recorded at its second use; the first runs eagerly on
the same stream, which initialises cuBLAS and loads kernels, neither of which may happen while recording. The graphs of
a request never run at the same time, so they share one memory pool, which goes when the last of them does.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress

import torch

from reference_engine.device import Device, forget_workspaces
from reference_engine.errors import DeviceFailed
from reference_engine.header import _no_collector


class StepGraphs:
    """The graphs over the memory of one request, by what distinguishes them: for steps, the attention length.

    Attributes:
        device: An open CUDA device.
        captured: Recorded steps, each with the memory in which a replay leaves its logits.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._warm: set[Hashable] = set()
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, key: Hashable, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Queue a step, or a short prompt, on the current stream; its logits, valid until the next.

        Args:
            key: What distinguishes the graphs.
            step: Queues the kernels; always the same ones, over the same memory, for the same key.

        Raises:
            OutOfDeviceMemory: No room for the step's intermediate results, or for the graph.
            DeviceFailed: The step cannot be recorded, or failed.
        """
        with self.device.guard():
            if key not in self._warm:
                with _beside(self.device.torch):
                    logits = step()
                self._warm.add(key)
                return logits
            if key not in self.captured:
                self.captured[key] = self._capture(step)
            graph, logits = self.captured[key]
            graph.replay()
            return logits

    def _capture(self, step: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Destroying some other object's events or graphs would spoil a recording.
        with _beside(self.device.torch), _no_collector():
            # Other threads may go on using the device: only calls of this one can spoil the recording.
            # A workspace that replays write must be the graph's own, for others go when memory is given back.
            forget_workspaces()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                logits = step()
                graph.capture_end()
            except BaseException as error:
                self._abandon(graph)
                if type(error) is RuntimeError:
                    # Libraries report their failures so; those of memory and device the guard knows.
                    raise DeviceFailed(str(self.device.torch), f"recording a step: {error}") from None
                raise
            finally:
                forget_workspaces()
        return graph, logits

    def _abandon(self, graph: torch.cuda.CUDAGraph) -> None:
        """End a spoilt recording. Ending it fails too, and the first error is the one to tell."""
        with suppress(RuntimeError), warnings.catch_warnings():
            # An empty graph is worth a warning to others; here it is what is left of a failed step.
            warnings.simplefilter("ignore")
            graph.capture_end()
        # In torch 2.11 a failed end leaves the allocator recording, and trimming it then is an internal error
        # (pytorch/pytorch#180395); later versions refuse this call, because nothing is recorded any more.
        with suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(self.device.index, self._pool)  # noqa: SLF001 - nothing public
            torch._C._cuda_releasePool(self.device.index, self._pool)  # noqa: SLF001


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream a device for all recordings: cuBLAS keeps a workspace for every stream it has ever seen."""
    return torch.cuda.Stream(device)


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Queue what the block queues on the side stream, after what the current one has and before what it gets."""
    home, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(home)
    try:
        with torch.cuda.stream(side):
            yield
    finally:
        home.wait_stream(side)
