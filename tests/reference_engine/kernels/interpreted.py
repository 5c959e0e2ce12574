"""What the tests of the kernels run with TRITON_INTERPRET=1 set before Triton is imported; prints JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys

import torch

from reference_engine.decode import Decoder
from reference_engine.device import Device
from reference_engine.kernels.linear import head
from reference_engine.kernels.plan import Plan, Split, Tile
from reference_engine.kernels.step import FusedStep
from reference_engine.kernels.tokens import choose
from reference_engine.model import SafeTensorsCudaModel

TILE = Tile(rows=16, columns=32, unroll=2, lines=0, warps=4, programs=5)
# Small chunks, so that 50 positions need several, and several turns to add them up.
PLAN = Plan(TILE, Split(8, 2, 4, columns=16, at_once=4), TILE, TILE, TILE, TILE, overlap=False)


def steps(model, decoder, capacity):
    with decoder.begin(model, [5, 400, 33, 7] * 12, capacity, 500) as decoding, torch.inference_mode():
        decoding.feed(9)
        logits = torch.stack([decoding.step().clone() for _ in range(2)])
        state = decoding._state
        return logits, state.ids[48:50].tolist(), int(state.position), state.cache.pairs[..., :50, :].clone()


def whole_step(path, dtype):
    model = SafeTensorsCudaModel.from_safetensors(path, Device(0, "cpu"), dtype)
    step = FusedStep(model.config, PLAN)
    fused = Decoder(step=step, advance=step.advance)
    expected, found, again = steps(model, Decoder(), 60), steps(model, fused, 60), steps(model, fused, 60)
    longer = steps(model, Decoder(step=step, advance=step.advance), 700)
    join = dataclasses.replace(PLAN.attention, join=True)
    joining = FusedStep(model.config, dataclasses.replace(PLAN, attention=join))
    joined = steps(model, Decoder(step=joining, advance=joining.advance), 60)
    return {
        "error": float((expected[0] - found[0]).abs().max()),
        "torch_ids": expected[1],
        "ids": found[1],
        "positions": [expected[2], found[2]],
        "cache_error": float((expected[3] - found[3]).abs().max()),
        "same_bits_again": all(torch.equal(found[i], again[i]) for i in (0, 3)),
        "same_bits_in_longer_cache": torch.equal(found[0], longer[0]),
        "same_bits_joined": all(torch.equal(found[i], joined[i]) for i in (0, 3)),
    }


def chosen(values, limit=None):
    """The choice among logits that are exactly `values`, through both kernels, in three programs of two rows."""
    count, programs = len(values), 3
    weight = torch.zeros(count, 32)
    weight[:, 0] = torch.tensor(values)
    x = torch.zeros(32)
    x[0] = 1.0
    logits, peaks = torch.empty(count), torch.empty(programs)
    peak_ids = torch.empty(programs, dtype=torch.int32)
    norm = torch.ones(32)
    token, position, ids = torch.zeros(1, dtype=torch.int64), torch.tensor([1]), torch.zeros(3, dtype=torch.int64)
    best = torch.zeros(3)
    head[(programs,)](
        x, norm, weight, logits, peaks, peak_ids, limit or count, 1e-6, count, 32,
        ROWS=2, BLOCK_K=32, UNROLL=1, LINES=0, OVERLAP=False,
    )  # fmt: skip
    choose[(1,)](peaks, peak_ids, logits, token, position, ids, best, COUNT=programs, BLOCK=4, OVERLAP=False)
    assert int(position) == 2
    assert int(ids[1]) == int(token)
    return int(token), float(best[1])


def choices():
    nan, low = math.nan, -math.inf
    found, logit = chosen([0.0, 1.0, 2.0, 4.0, 1.0, nan, 4.0, 9.0, 1.0])
    return {
        "equal": chosen([0.0, 1.0, 2.0, 4.0, 1.0, 4.0, 4.0, 3.0, 4.0])[0],
        "limit": chosen([0.0, 1.0, 2.0, 4.0, 1.0, 9.0, 9.0, 9.0, 9.0], 5)[0],
        "nan": found,
        "nan_logit": math.isnan(logit),
        "all_minus_infinity": chosen([low] * 9)[0],
    }


if __name__ == "__main__":
    result = choices() if sys.argv[1] == "choose" else whole_step(*sys.argv[2:])
    sys.stdout.write(json.dumps(result) + "\n")
