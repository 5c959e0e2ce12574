"""Attention of one position: rotary embedding, the new KV cache entry, split-KV softmax, reduction in fixed order.

The visible positions are cut into chunks of `N`, a program each: it reads the chunk's keys and values once, for `PER`
of the heads that share them. What a chunk gives depends on the position alone, and the chunks are added up from the
first to the last, by `combine` or, with `JOIN`, by whichever program of `attend` ends last: the result has the same
bits however long the cache is, and whoever adds up.
"""

from __future__ import annotations

from reference_engine.kernels.overlap import let_next_start, wait
from reference_engine.kernels.toolchain import tl, triton


@triton.jit(do_not_specialize=["capacity"])
def attend(
    qkv,
    cos,
    sin,
    pairs,
    position,
    partial,
    peaks,
    sums,
    arrivals,
    out,
    capacity,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    D: tl.constexpr,
    PER: tl.constexpr,
    N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    AT_ONCE: tl.constexpr,
    JOIN: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """What each chunk gives to each head, from `qkv` F32 [(HEADS + 2 * GROUPS) * D]; programs (HEADS / PER, chunks).

    `pairs` [2, GROUPS, capacity, D] is the layer's cache, `cos` and `sin` [capacity, D] as in `KvCache`. `partial`
    F32 [HEADS, chunks, D] is the sum of values weighted by exp(score - peak); `peaks` and `sums` F32 [HEADS, chunks]
    are the chunk's greatest score and the sum of the weights. Chunks past the position are left as they were. With
    `JOIN` the last program of a head counts `arrivals` i32 [HEADS / PER], zeros before and after, up to the visible
    chunks and leaves the heads in `out` F32 [HEADS * D].

    Bytes: 2 * GROUPS * D a visible position in the cache's dtype, once from memory, HEADS / GROUPS / PER times from
    the L2 cache. Floor: at 4,096 positions of Qwen2.5-1.5B on an H100 2.8 us in F32 and 1.4 in BF16; measured with
    `combine` 11 and 12 us (0.25 and 0.12), at 256 positions 4 us, which is two kernels' latency.
    """
    SHARED: tl.constexpr = HEADS // GROUPS
    SCALE: tl.constexpr = D**-0.5
    let_next_start(OVERLAP)
    first, chunk = tl.program_id(0) * PER, tl.program_id(1)
    group = first // SHARED
    place = tl.load(position).to(tl.int32)
    if chunk * N > place:
        wait(OVERLAP)
        return
    d = tl.arange(0, BLOCK_D)
    inside = d < D
    seen = chunk * N + tl.arange(0, N)
    keys = pairs + group.to(tl.int64) * capacity * D
    values = keys + tl.cast(capacity, tl.int64) * (GROUPS * D)
    at = seen.to(tl.int64)[:, None] * D + d[None, :]
    old = (seen < place)[:, None] & inside[None, :]
    turn = place.to(tl.int64) * D + d
    # What earlier steps left can be read before the kernel of the projections ends.
    k = tl.load(keys + at, mask=old, other=0.0).to(tl.float32)
    v = tl.load(values + at, mask=old, other=0.0).to(tl.float32)
    turn_cos = tl.load(cos + turn, mask=inside, other=0.0).to(tl.float32)
    turn_sin = tl.load(sin + turn, mask=inside, other=0.0).to(tl.float32)
    wait(OVERLAP)
    if chunk == place // N:
        new = qkv + (HEADS + group) * D
        # What this step sees is what later steps will read.
        key = _rotated(new, turn_cos, turn_sin, d, D).to(pairs.dtype.element_ty)
        value = tl.load(new + GROUPS * D + d, mask=inside, other=0.0).to(pairs.dtype.element_ty)
        if first % SHARED == 0:
            tl.store(keys + place.to(tl.int64) * D + d, key, mask=inside)
            tl.store(values + place.to(tl.int64) * D + d, value, mask=inside)
        k = tl.where((seen == place)[:, None], key.to(tl.float32)[None, :], k)
        v = tl.where((seen == place)[:, None], value.to(tl.float32)[None, :], v)
    for head in tl.static_range(PER):
        query = _rotated(qkv + (first + head) * D, turn_cos, turn_sin, d, D) * SCALE
        scores = tl.where(seen <= place, tl.sum(k * query[None, :], axis=1), float("-inf"))
        peak = tl.max(scores, axis=0)
        weights = tl.exp(scores - peak)
        slot = (first + head) * tl.num_programs(1) + chunk
        tl.store(peaks + slot, peak)
        tl.store(sums + slot, tl.sum(weights, axis=0))
        tl.store(partial + slot.to(tl.int64) * D + d, tl.sum(weights[:, None] * v, axis=0), mask=inside)
    if JOIN:
        # All threads' stores come before the one that counts them; what others stored is read from the L2 cache.
        tl.debug_barrier()
        last = place // N
        if tl.atomic_add(arrivals + tl.program_id(0), 1, sem="acq_rel", scope="gpu") == last:
            tl.store(arrivals + tl.program_id(0), 0)
            for head in tl.static_range(PER):
                slots = (first + head) * tl.num_programs(1)
                mixed = _added(partial, peaks, sums, slots, last + 1, d, D, BLOCK_D, AT_ONCE)
                tl.store(out + (first + head) * D + d, mixed, mask=inside)


@triton.jit
def _rotated(start, cos, sin, d, D: tl.constexpr):
    """The head vector F32 [D] at `start`, rotated."""
    inside = d < D
    x = tl.load(start + d, mask=inside, other=0.0)
    return x * cos + tl.load(start + (d + D // 2) % D, mask=inside, other=0.0) * sin


@triton.jit(do_not_specialize=["slots"])
def combine(
    partial,
    peaks,
    sums,
    position,
    out,
    slots,
    D: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    AT_ONCE: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Heads F32 [HEADS * D] of what `attend` left in `slots` chunks a head; programs (HEADS, D / BLOCK).

    Bytes: D + 2 F32 a head and visible chunk, from the L2 cache; no floor but a kernel's latency, 2 us.
    """
    let_next_start(OVERLAP)
    head = tl.program_id(0)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    chunks = tl.load(position).to(tl.int32) // N + 1
    wait(OVERLAP)
    mixed = _added(partial, peaks, sums, head * slots, chunks, d, D, BLOCK, AT_ONCE)
    tl.store(out + head * D + d, mixed, mask=d < D)


@triton.jit
def _added(partial, peaks, sums, slots, chunks, d, D: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr):
    """Columns `d` [BLOCK] of the head whose chunks lie from `slots` on: F32 [BLOCK]."""
    top, total = float("-inf"), 0.0
    mixed = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, chunks, AT_ONCE):
        chunk = begin + tl.arange(0, AT_ONCE)
        there = chunk < chunks
        slot = slots + chunk
        peak = tl.load(peaks + slot, mask=there, other=float("-inf"), cache_modifier=".cg")
        share = tl.load(sums + slot, mask=there, other=0.0, cache_modifier=".cg")
        column = slot.to(tl.int64)[:, None] * D + d[None, :]
        visible = there[:, None] & (d < D)[None, :]
        part = tl.load(partial + column, mask=visible, other=0.0, cache_modifier=".cg")
        higher = tl.maximum(top, tl.max(peak, axis=0))
        fade, weights = tl.exp(top - higher), tl.exp(peak - higher)
        total = total * fade + tl.sum(share * weights, axis=0)
        mixed = mixed * fade + tl.sum(part * weights[:, None], axis=0)
        top = higher
    return mixed / total
