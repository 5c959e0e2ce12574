"""The two ends of a step: the embedding's row of the token, and the choice of the next one."""

from __future__ import annotations

from reference_engine.kernels.linear import peak
from reference_engine.kernels.overlap import let_next_start, wait
from reference_engine.kernels.toolchain import tl, triton


@triton.jit
def embed(token, embedding, hidden, SIZE: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """`hidden` F32 [SIZE] becomes the row of `embedding` that `token` names. Bytes: one row.

    First of a step, it is launched without overlap, so that kernels after it find the step before complete.
    """
    let_next_start(OVERLAP)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = column < SIZE
    row = tl.load(token).to(tl.int64)
    value = tl.load(embedding + row * SIZE + column, mask=inside, other=0.0)
    tl.store(hidden + column, value.to(tl.float32), mask=inside)


@triton.jit
def choose(
    peaks,
    peak_ids,
    logits,
    token,
    position,
    ids,
    best_logits,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """The lowest id among those of the greatest logit, from `COUNT` peaks of `head`; the position moves on.

    At the position, `ids` and `best_logits` get the id and its logit. Bytes: 8 a peak.
    """
    let_next_start(OVERLAP)
    wait(OVERLAP)
    place = tl.load(position)
    lane = tl.arange(0, BLOCK)
    value = tl.load(peaks + lane, mask=lane < COUNT, other=float("-inf"))
    _, best = peak(value, tl.load(peak_ids + lane, mask=lane < COUNT, other=0), lane < COUNT)
    # All threads have read the position before one moves it.
    tl.debug_barrier()
    tl.store(token, best.to(tl.int64))
    tl.store(ids + place, best.to(tl.int64))
    tl.store(best_logits + place, tl.load(logits + best))
    tl.store(position, place + 1)
