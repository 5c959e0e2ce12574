"""Attention of one position: rotary embedding, the new KV cache entry, split-KV softmax, reduction in fixed order.

The keys of a KV head are cut into chunks of `N` positions, and runs of chunks go to the programs ("splits"). How
many splits work, and on what, depends on the position alone, never on how long the cache is: the result has the
same bits wherever the cache ends. The split that finishes last adds the partial results up, always from the first
to the last.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reference_engine.kernels.overlap import LINE, let_next_start, prefetch, wait


@triton.jit
def _rotated(start, weight, cos, sin, d, inside, eps, D: tl.constexpr, NORM: tl.constexpr):
    """Head vectors at `start` (a pointer, or [.., 1, 1]; F32) rotated; `NORM`: normalised by `weight` [D] first."""
    other = (d + D // 2) % D
    x = tl.load(start + d, mask=inside, other=0.0)
    swapped = tl.load(start + other, mask=inside, other=0.0)
    if NORM:
        root = 1.0 / tl.sqrt_rn(tl.sum(x * x, axis=2, keep_dims=True) / D + eps)
        x = x * root * tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)
        swapped = swapped * root * tl.load(weight + other, mask=d < D, other=0.0).to(tl.float32)
    return x * cos + swapped * sin


@triton.jit
def attend(
    qkv,
    q_norm,
    k_norm,
    cos,
    sin,
    pairs,
    position,
    out,
    partial,
    partial_peaks,
    partial_sums,
    arrived,
    capacity,
    eps,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    D: tl.constexpr,
    WINDOW: tl.constexpr,
    NORM: tl.constexpr,
    Q: tl.constexpr,
    N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Heads F32 [HEADS * D] of the position from `qkv` F32 [(HEADS + 2 * GROUPS) * D]; programs (GROUPS, SPLITS).

    `pairs` [2, GROUPS, capacity, D] is the layer's cache, `cos` and `sin` [capacity, D] as in `KvCache`. `WINDOW`
    limits how far back a position looks (0: to the first). `LEAST` chunks at least go to one split. `partial`
    [GROUPS, SPLITS, HEADS / GROUPS, D], its peaks and sums [GROUPS, SPLITS, HEADS / GROUPS] are scratch; `arrived`
    int32 [GROUPS] is zero before and after.

    Bytes: 2 * GROUPS * D a visible position in the cache's dtype, once.
    """
    SHARED: tl.constexpr = HEADS // GROUPS
    SCALE: tl.constexpr = D**-0.5
    ITEM: tl.constexpr = pairs.dtype.element_ty.primitive_bitwidth // 8
    PER_LINE: tl.constexpr = min(BLOCK_D, LINE // ITEM)
    let_next_start(OVERLAP)
    group, split = tl.program_id(0), tl.program_id(1)
    place = tl.load(position).to(tl.int32)
    first, last = 0, place // N
    if WINDOW > 0:
        first = tl.maximum(place - WINDOW + 1, 0) // N
    chunks = last - first + 1
    each = tl.maximum(LEAST, tl.cdiv(chunks, SPLITS))
    active = tl.cdiv(chunks, each)
    begin = first + split * each
    end = tl.minimum(begin + each, last + 1)

    head = tl.arange(0, Q)[:, None, None]
    lane = tl.arange(0, N)[None, :, None]
    d = tl.arange(0, BLOCK_D)[None, None, :]
    keys = pairs + group.to(tl.int64) * capacity * D
    values = keys + tl.cast(capacity, tl.int64) * (GROUPS * D)
    if OVERLAP:
        line = tl.minimum(tl.arange(0, BLOCK_D // PER_LINE) * PER_LINE, D - 1)[None, :]
        for chunk in range(begin, end):
            at = (chunk * N + tl.arange(0, N)[:, None]).to(tl.int64) * D + line
            prefetch(keys + at, OVERLAP)
            prefetch(values + at, OVERLAP)
    turn_cos = tl.load(cos + place.to(tl.int64) * D + d, mask=d < D, other=0.0).to(tl.float32)
    turn_sin = tl.load(sin + place.to(tl.int64) * D + d, mask=d < D, other=0.0).to(tl.float32)
    wait(OVERLAP)

    if split < active:
        inside = (head < SHARED) & (d < D)
        query = _rotated(qkv + (group * SHARED + head) * D, q_norm, turn_cos, turn_sin, d, inside, eps, D, NORM)
        query *= SCALE
        new = qkv + (HEADS + group) * D
        key = _rotated(new, k_norm, turn_cos, turn_sin, d, d < D, eps, D, NORM)
        # What this step sees is what later steps will read.
        key = key.to(pairs.dtype.element_ty)
        value = tl.load(new + GROUPS * D + d, mask=d < D, other=0.0).to(pairs.dtype.element_ty)
        if end == last + 1:
            tl.store(keys + place.to(tl.int64) * D + d, key, mask=d < D)
            tl.store(values + place.to(tl.int64) * D + d, value, mask=d < D)

        top = tl.full((Q, N), float("-inf"), tl.float32)
        total = tl.zeros((Q, N), tl.float32)
        mixed = tl.zeros((Q, N, BLOCK_D), tl.float32)
        for chunk in range(begin, end):
            seen = chunk * N + lane
            at = seen.to(tl.int64) * D + d
            old = (seen < place) & (d < D)
            k = tl.where(seen == place, key, tl.load(keys + at, mask=old, other=0.0)).to(tl.float32)
            v = tl.where(seen == place, value, tl.load(values + at, mask=old, other=0.0)).to(tl.float32)
            column = chunk * N + tl.arange(0, N)[None, :]
            visible = column <= place
            if WINDOW > 0:
                visible = visible & (column > place - WINDOW)
            scores = tl.where(visible, tl.sum(query * k, axis=2), float("-inf"))
            higher = tl.maximum(top, scores)
            # A lane that has seen nothing yet has no peak to subtract.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            fade = tl.exp(top - base)
            share = tl.exp(scores - base)
            total = total * fade + share
            mixed = mixed * fade[:, :, None] + share[:, :, None] * v
            top = higher

        peak = tl.max(top, axis=1)
        weight = tl.exp(top - peak[:, None])
        total_all = tl.sum(total * weight, axis=1)
        mixed_all = tl.sum(mixed * weight[:, :, None], axis=1)
        shared = tl.arange(0, Q)
        column_d = tl.arange(0, BLOCK_D)[None, :]
        stored = (shared[:, None] < SHARED) & (column_d < D)
        target = out + (group * SHARED + shared[:, None]) * D + column_d
        if active == 1:
            tl.store(target, mixed_all / total_all[:, None], mask=stored)
        else:
            slot = (group * SPLITS + split) * SHARED + shared
            tl.store(partial_peaks + slot, peak, mask=shared < SHARED)
            tl.store(partial_sums + slot, total_all, mask=shared < SHARED)
            tl.store(partial + slot[:, None] * D + column_d, mixed_all, mask=stored)
            # One thread announces what all threads of the program have written.
            tl.debug_barrier()
            before = tl.atomic_add(arrived + group, 1, sem="acq_rel")
            if before == active - 1:
                tl.debug_barrier()
                result = _combined(partial, partial_peaks, partial_sums, group, active, SHARED, D, Q, BLOCK_D, SPLITS)
                tl.store(target, result, mask=stored)
                tl.store(arrived + group, 0)


@triton.jit
def _combined(
    partial,
    partial_peaks,
    partial_sums,
    group,
    active,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    Q: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """The heads of a group [Q, BLOCK_D] from the partial results of its splits, added in their order."""
    AT_ONCE: tl.constexpr = min(4, SPLITS)
    shared = tl.arange(0, Q)[None, :]
    split = tl.arange(0, SPLITS)[:, None]
    there = (split < active) & (shared < SHARED)
    slot = (group * SPLITS + split) * SHARED + shared
    peaks = tl.load(partial_peaks + slot, mask=there, other=float("-inf"), cache_modifier=".cg")
    # Rows that pad the heads hold no peak; zero keeps them finite.
    peak = tl.max(tl.where(shared < SHARED, peaks, 0.0), axis=0)
    sums = tl.load(partial_sums + slot, mask=there, other=0.0, cache_modifier=".cg")
    total = tl.sum(sums * tl.exp(peaks - peak[None, :]), axis=0)
    d = tl.arange(0, BLOCK_D)[None, None, :]
    result = tl.zeros((Q, BLOCK_D), tl.float32)
    for begin in range(0, active, AT_ONCE):
        some = begin + tl.arange(0, AT_ONCE)[:, None]
        place = (group * SPLITS + some) * SHARED + shared
        among = (some < active) & (shared < SHARED)
        weight = tl.exp(tl.load(partial_peaks + place, mask=among, other=float("-inf"), cache_modifier=".cg") - peak)
        part = tl.load(
            partial + place[:, :, None] * D + d,
            mask=among[:, :, None] & (d < D),
            other=0.0,
            cache_modifier=".cg",
        )
        result += tl.sum(part * weight[:, :, None], axis=0)
    # Rows that pad the heads have nothing to divide by.
    return result / tl.where(total == 0, 1.0, total)[:, None]
