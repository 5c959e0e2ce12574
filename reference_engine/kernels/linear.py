"""Matrix-vector products: each program multiplies a few rows of a weight [out, in], as stored, by one vector.

Products and sums are F32 on CUDA cores for every dtype of weights. RMSNorm is part of the product: the vector is
scaled by the norm's weight while it is read, its squares are summed on the way, and the root divides the sums at
the end. A row is summed by one program in an order that depends on the shape alone.
"""

from __future__ import annotations

from reference_engine.kernels.overlap import LINE, let_next_start, prefetch, wait
from reference_engine.kernels.toolchain import tl, triton

NO_ID = tl.constexpr(2**31 - 1)


@triton.jit
def _accumulate(sums, squares, rows, x, norm, begin, K: tl.constexpr, BLOCK_K: tl.constexpr, NORM: tl.constexpr):
    """Add the products of `BLOCK_K` columns from `begin` on."""
    k = begin + tl.arange(0, BLOCK_K)
    if K % BLOCK_K == 0:
        weight = tl.load(rows + k[None, :], eviction_policy="evict_first").to(tl.float32)
        vector = tl.load(x + k)
        if NORM:
            squares += vector * vector
            vector *= tl.load(norm + k).to(tl.float32)
    else:
        inside = k < K
        weight = tl.load(rows + k[None, :], mask=inside[None, :], other=0.0, eviction_policy="evict_first")
        weight = weight.to(tl.float32)
        vector = tl.load(x + k, mask=inside, other=0.0)
        if NORM:
            squares += vector * vector
            vector *= tl.load(norm + k, mask=inside, other=0.0).to(tl.float32)
    return sums + weight * vector[None, :], squares


@triton.jit
def _products(
    weight,
    rows,
    x,
    norm,
    eps,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
    NORM: tl.constexpr,
):
    """Products of the rows `rows` [ROWS] of `weight` with `x` [K], normalised first if `NORM`: F32 [ROWS]."""
    starts = weight + rows.to(tl.int64)[:, None] * K
    sums = tl.zeros((ROWS, BLOCK_K), tl.float32)
    squares = tl.zeros((BLOCK_K,), tl.float32)
    whole: tl.constexpr = K // (BLOCK_K * UNROLL) * (BLOCK_K * UNROLL)
    rest: tl.constexpr = (K - whole + BLOCK_K - 1) // BLOCK_K
    for begin in range(0, whole, BLOCK_K * UNROLL):
        for part in tl.static_range(UNROLL):
            sums, squares = _accumulate(sums, squares, starts, x, norm, begin + part * BLOCK_K, K, BLOCK_K, NORM)
    for part in tl.static_range(rest):
        sums, squares = _accumulate(sums, squares, starts, x, norm, whole + part * BLOCK_K, K, BLOCK_K, NORM)
    result = tl.sum(sums, axis=1)
    if NORM:
        result *= 1.0 / tl.sqrt_rn(tl.sum(squares, axis=0) / K + eps)
    return result


@triton.jit
def _prefetch_rows(weight, rows, K: tl.constexpr, LINES: tl.constexpr, OVERLAP: tl.constexpr):
    """Ask for the first `LINES` cache lines of each row."""
    if LINES > 0:
        per_line: tl.constexpr = LINE // (weight.dtype.element_ty.primitive_bitwidth // 8)
        offsets = tl.minimum(tl.arange(0, LINES) * per_line, K - 1)
        prefetch(weight + rows.to(tl.int64)[:, None] * K + offsets[None, :], OVERLAP)


@triton.jit
def project(
    x,
    norm,
    weight,
    bias,
    out,
    eps,
    OUT: tl.constexpr,
    K: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
    LINES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """`out` [OUT] becomes, or with `RESIDUAL` grows by, weight [OUT, K] times x [K] (F32, normalised), plus bias.

    Bytes: OUT * K of the weights' dtype, once; the vector comes from the L2 cache. Floor: these bytes at the rate of
    reading. Measured on an H100 (Qwen2.5-1.5B's shapes, F32 / BF16, share of the rate): q|k|v 0.75 / 0.53, output
    0.77 / 0.54, down 0.97 / 0.88.
    """
    let_next_start(OVERLAP)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < OUT
    read = tl.minimum(row, OUT - 1)
    _prefetch_rows(weight, read, K, LINES, OVERLAP)
    wait(OVERLAP)
    result = _products(weight, read, x, norm, eps, K, ROWS, BLOCK_K, UNROLL, NORM)
    if BIAS:
        result += tl.load(bias + read).to(tl.float32)
    if RESIDUAL:
        result += tl.load(out + read)
    tl.store(out + row, result, mask=inside)


@triton.jit
def gate_up(
    x,
    norm,
    weight,
    out,
    eps,
    OUT: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
    LINES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """SiLU(gate) * up, F32 [OUT], of x [K] normalised; weight [2 * OUT, K] holds the gate's rows, then up's.

    A program takes `ROWS` of each. Bytes: 2 * OUT * K of the weights' dtype, once. Floor: these bytes at the rate of
    reading. Measured as for `project`: 1.0 / 0.96.
    """
    let_next_start(OVERLAP)
    pair = tl.arange(0, 2 * ROWS)
    read = tl.minimum(tl.program_id(0) * ROWS + pair // 2, OUT - 1) + pair % 2 * OUT
    _prefetch_rows(weight, read, K, LINES, OVERLAP)
    wait(OVERLAP)
    both = _products(weight, read, x, norm, eps, K, 2 * ROWS, BLOCK_K, UNROLL, True)
    gate, up = tl.split(tl.reshape(both, (ROWS, 2)))
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    tl.store(out + row, gate / (1.0 + tl.exp(-gate)) * up, mask=row < OUT)


@triton.jit(do_not_specialize=["limit"])
def head(
    x,
    norm,
    weight,
    logits,
    peaks,
    ids,
    limit,
    eps,
    OUT: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    UNROLL: tl.constexpr,
    LINES: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """Logits F32 [OUT] of x [K] normalised, and of each program the greatest below id `limit`, with its id.

    A NaN counts as greater than all, so that it is found. Bytes: OUT * K of the weights' dtype, once. Floor: these
    bytes at the rate of reading. Measured as for `project`: 1.0 / 1.0.
    """
    let_next_start(OVERLAP)
    blocks = (OUT + ROWS - 1) // ROWS
    lane = tl.arange(0, ROWS)
    _prefetch_rows(weight, tl.minimum(tl.program_id(0) * ROWS + lane, OUT - 1), K, LINES, OVERLAP)
    wait(OVERLAP)
    best, best_id = float("-inf"), NO_ID
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        row = block * ROWS + lane
        result = _products(weight, tl.minimum(row, OUT - 1), x, norm, eps, K, ROWS, BLOCK_K, UNROLL, True)
        tl.store(logits + row, result, mask=row < OUT)
        best, best_id = greater(best, best_id, *peak(result, row, row < limit))
    tl.store(peaks + tl.program_id(0), best)
    tl.store(ids + tl.program_id(0), best_id)


@triton.jit
def peak(values, ids, eligible):
    """The greatest eligible value, NaN as infinity, and the lowest id that has it."""
    keys = tl.where(eligible, tl.where(values != values, float("inf"), values), float("-inf"))  # noqa: PLR0124
    best = tl.max(keys, axis=0)
    return best, tl.min(tl.where(eligible & (keys == best), ids, NO_ID), axis=0)


@triton.jit
def greater(a, a_id, b, b_id):
    """The greater of two peaks; of equal ones that with the lower id."""
    second = (b > a) | ((b == a) & (b_id < a_id))
    return tl.where(second, b, a), tl.where(second, b_id, a_id)
