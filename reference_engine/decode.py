"""Decoding on the device: token, position and choice stay there; the host only launches steps and reads ids late.

A step is a fixed sequence of kernels over fixed memory, which is what a CUDA graph can replay (`graph.py`).
What varies is how much of the KV cache attention looks at: it is rounded up to a bucket, and a mask hides the
positions not yet written. Run eagerly or replayed, a step is the same kernels on the same shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from reference_engine.errors import InvalidArgument
from reference_engine.graph import StepGraphs

if TYPE_CHECKING:
    from reference_engine.kernels.choosing import Choice
    from reference_engine.model import KvCache, SafeTensorsCudaModel

FIRST_BUCKET = 256
READ_EVERY = 4
# Capacities beyond this are eighths of a bucket, so that at most a fifth of the KV cache is left over.
WHOLE_BUCKET = 1024
# On a GPU, shorter prompts wait for the launches of their kernels: they are padded and recorded. By bytes of a weight.
RECORDED_PROMPT = {4: 128, 2: 1024}
PROMPT_STEP = 8


# One step of a model, where an implementation with kernels of its own plugs in: of the model, `state` and `length`.
# It pushes `state.token` at `state.position`, attending to the first `length` positions, and gives logits F32 [vocab].
# It may be captured: it must not synchronise, and must find everything that changes from step to step in tensors of
# `state`.
Step: TypeAlias = "Callable[[SafeTensorsCudaModel, DecodeState, int], torch.Tensor]"
# The choice of the next id after a step, by `state` and logits: what belongs to a step with kernels of its own.
# It puts the best id of the logits below `state.id_limit`, the lowest among equals, into `state.token`. That id and its
# logit go into `state.ids` and `state.peaks` at `state.position`, which moves on by one.
Advance: TypeAlias = "Callable[[DecodeState, torch.Tensor], None]"


class DecodeState:
    """The fixed memory of a request, reused by the next one that fits.

    Attributes:
        cache: The KV cache.
        token: int64 [1], the id to push next.
        position: int64 [1], where it goes.
        ids: int64 [capacity]; at p, the best id after position p.
        peaks: F32 [capacity]; at p, the logit of that id.
        id_limit: Ids from here on are never chosen.
        graphs: Captured steps over this memory; None if steps run eagerly.
        scratch: What else a step needs, made by it at its first run.
        prompt: int64, a prompt that is recorded, padded with zeros.
        last: int64 [1], where it ends.
    """

    def __init__(
        self, model: SafeTensorsCudaModel, capacity: int, id_limit: int | None, graphs: StepGraphs | None
    ) -> None:
        self.cache: KvCache = model.new_cache(capacity)
        self.token = model.device.empty((1,), torch.int64)
        self.position = model.device.empty((1,), torch.int64)
        self.ids = model.device.empty((capacity,), torch.int64)
        self.peaks = model.device.empty((capacity,), torch.float32)
        self.id_limit = id_limit
        self.graphs = graphs
        self.scratch: Any = None
        longest = RECORDED_PROMPT[model.weights.dtype.itemsize] if model.device.is_cuda else 0
        self.prompt = model.device.empty((min(longest, self.cache.capacity),), torch.int64)
        self.last = model.device.empty((1,), torch.int64)

    @property
    def dropped(self) -> bool:
        """Whether the memory was let go."""
        return not vars(self)

    def drop(self) -> None:
        """Let go of memory and graphs, whoever else still refers to this object (a traceback does)."""
        vars(self).clear()


@dataclass(eq=False, kw_only=True)
class Decoder:
    """Starts requests, and keeps the memory and graphs of the last one for the next. One decoder serves one model.

    Attributes:
        graphs: Capture each step as a CUDA graph and replay it; otherwise run it eagerly.
        read_every: Steps between two looks at the chosen ids; up to `read_every - 1` steps after a stop id are
            computed in vain.
        step: The step; by default plain torch.
        advance: The choice after it; by default plain torch.
        first_bucket: Shortest attention length; each next one is twice as long, up to the cache's capacity.
        declined: Why the fused kernels do not run this model; empty if they do, or were not asked.
    """

    graphs: bool = False
    read_every: int = READ_EVERY
    step: Step = field(default_factory=lambda: torch_step)
    advance: Advance = field(default_factory=lambda: torch_advance)
    first_bucket: int = FIRST_BUCKET
    declined: str = field(default="", init=False)
    _idle: DecodeState | None = field(default=None, init=False)
    _lent: list[DecodeState] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if min(self.read_every, self.first_bucket) < 1:
            raise InvalidArgument("decoder", "read_every and first_bucket start at 1")

    @contextmanager
    def begin(
        self, model: SafeTensorsCudaModel, prompt_ids: Sequence[int], capacity: int, id_limit: int | None
    ) -> Iterator[Decoding]:
        """Prefill a prompt, with room for `capacity` positions in all.

        Requests may overlap: each has memory of its own until it ends.

        Raises:
            ContextTooLong: The model has fewer positions.
            OutOfDeviceMemory: No room for the KV cache.
        """
        state = self._take(model, capacity, id_limit)
        self._lent.append(state)
        try:
            yield Decoding(self, model, state, prompt_ids)
        except GeneratorExit:
            raise
        except BaseException:
            # Not kept: what failed may be the memory.
            state.drop()
            raise
        finally:
            self._lent.remove(state)
            if not state.dropped:
                self._idle = state

    def use(self, choice: Choice) -> None:
        """Decode by the fused step, or by torch where there is none."""
        self.declined = choice.reason
        if choice.step is not None:
            self.step, self.advance = choice.step, choice.step.advance

    def bucket(self, length: int, most: int) -> int:
        """The attention length for `length` positions: the next bucket, at most `most`."""
        bucket = self.first_bucket
        while bucket < length:
            bucket *= 2
        return min(bucket, most)

    def release(self) -> None:
        """Let go of all memory and graphs; requests under way cannot go on."""
        for state in self._lent:
            state.drop()
        self._idle = None

    def _take(self, model: SafeTensorsCudaModel, capacity: int, id_limit: int | None) -> DecodeState:
        state, self._idle = self._idle, None
        if state is not None and state.cache.capacity >= capacity and state.id_limit == id_limit:
            return state
        if state is not None:
            # Given back before the larger one is asked for, so that the two never exist together.
            state = None
            model.device.trim()
        most = max(capacity, model.config.max_positions)
        bucket = self.bucket(capacity, most)
        step = bucket if bucket <= WHOLE_BUCKET else bucket // 8
        graphs = StepGraphs(model.device) if self.graphs else None
        return DecodeState(model, min(-(-capacity // step) * step, most), id_limit, graphs)


class Decoding:
    """One request on its way. `logits` are those after the prompt's last position, F32 [vocab].

    Ids from `id_limit` on must not be chosen; `position` is the next one.
    """

    @torch.inference_mode()
    def __init__(
        self, decoder: Decoder, model: SafeTensorsCudaModel, state: DecodeState, prompt_ids: Sequence[int]
    ) -> None:
        self._decoder = decoder
        self._model = model
        self._state = state
        with model.device.guard():
            # Attention multiplies hidden positions by zero, and zero times what a broken request left can be NaN.
            state.cache.pairs.zero_()
            self.logits = self._prefill(prompt_ids)
            state.position.fill_(len(prompt_ids))
        self.position, self.id_limit = len(prompt_ids), state.id_limit

    @torch.inference_mode()
    def feed(self, token: int) -> None:
        """Set the id that the next step pushes; without it, a step pushes the best id of the step before.

        Raises:
            ClosedHandle: The model was unloaded.
        """
        with self._loaded():
            self._state.token.fill_(token)

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """Queue one step; logits F32 [vocab], valid until the next.

        Raises:
            ClosedHandle: The model was unloaded.
            OutOfDeviceMemory, DeviceFailed: By cause.
        """
        with self._loaded():
            state = self._state
            length = self._decoder.bucket(self.position + 1, state.cache.capacity)
            if state.graphs is None:
                logits = self._step_and_choose(length)
            else:
                logits = state.graphs.run(length, lambda: self._step_and_choose(length))
        self.position += 1
        return logits

    @torch.inference_mode()
    def greedy(self, steps: int) -> list[tuple[int, float]]:
        """Run steps, each pushing the best id of the one before: the best ids and their logits, read at the end."""
        state, new = self._state, slice(self.position, self.position + steps)
        for _ in range(steps):
            self.step()
        with self._model.device.guard():
            found = torch.stack((state.ids[new].double(), state.peaks[new].double()))
            return [(int(token), peak) for token, peak in zip(*found.tolist(), strict=True)]

    def _prefill(self, ids: Sequence[int]) -> torch.Tensor:
        """Logits F32 [vocab] after a prompt; what pads it comes after it, so that none of its tokens see that."""
        model, state = self._model, self._state
        length = -(-len(ids) // PROMPT_STEP) * PROMPT_STEP
        if length > state.prompt.numel():
            return model.prefill(ids, state.cache)[-1]
        state.prompt.zero_()[: len(ids)] = torch.tensor(ids, device=model.device.torch)
        state.last.fill_(len(ids) - 1)

        def padded() -> torch.Tensor:
            positions = torch.arange(length, device=model.device.torch)
            hidden = model.forward(state.prompt[:length], positions, length, state.cache)
            return model.head(hidden.index_select(0, state.last))[0]

        return padded() if state.graphs is None else state.graphs.run(("prompt", length), padded).clone()

    def _loaded(self) -> AbstractContextManager[None]:
        """The device's guard, once the weights were asked for: a replay would not notice that they are gone."""
        _ = self._model.weights
        return self._model.device.guard()

    def _step_and_choose(self, length: int) -> torch.Tensor:
        # Triton launches on the current device, whatever device its arguments lie on.
        with torch.cuda.device(self._model.device.index if self._model.device.is_cuda else -1):
            logits = self._decoder.step(self._model, self._state, length)
            self._decoder.advance(self._state, logits)
        return logits


def torch_step(model: SafeTensorsCudaModel, state: DecodeState, length: int) -> torch.Tensor:
    """The model's own forward pass over one token."""
    return model.head(model.forward(state.token, state.position, length, state.cache))[0]


def torch_advance(state: DecodeState, logits: torch.Tensor) -> None:
    """The choice by `argmax`, which documents that of equal maxima the lowest index wins."""
    torch.argmax(logits[: state.id_limit], dim=0, keepdim=True, out=state.token)
    state.ids.index_copy_(0, state.position, state.token)
    state.peaks.index_copy_(0, state.position, logits.index_select(0, state.token))
    state.position.add_(1)
