"""Decode rate on the CPU against transformers: interleaved pairs, by the difference of two lengths, as ratios.

    python benchmarks/decode_cpu.py [--pairs 7] [--json FILE] MODEL…      MODEL: fixture, smollm2, or a path

Both decode greedily in F32 with the same number of threads; the ids must be the same, or nothing is reported.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit
from transformers import AutoModelForCausalLM

from conformance.corpus.models import resolve_model
from reference_engine.device import Device
from reference_engine.engine import Engine
from reference_engine.generate import GenerationRequest

SHORT, LONG = 8, 72
PROMPT = [5, 17, 33, 60, 9, 12, 40, 71]
Decode = Callable[[int], list[int]]


def ours(directory: Path) -> Decode:
    """Decoding by the reference engine: a count of new tokens to their ids."""
    engine = Engine.load(directory, Device(0, "cpu"), "F32")
    return lambda count: engine.infer(GenerationRequest(PROMPT, count, ignore_eos=True)).ids


def theirs(directory: Path) -> Decode:
    """The same by transformers."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True)
    prompt = torch.tensor([PROMPT])

    def decode(count: int) -> list[int]:
        with torch.inference_mode():
            found = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
        return [int(token) for token in found[0, len(PROMPT) :]]

    return decode


def rate(decode: Decode) -> float:
    """Tokens a second between two lengths."""
    seconds = []
    for count in (SHORT, LONG):
        began = time.perf_counter()
        decode(count)
        seconds.append(time.perf_counter() - began)
    return (LONG - SHORT) / (seconds[1] - seconds[0])


def compare(name: str, pairs: int) -> dict[str, Any]:
    """Rates of both and the ratio with its 95 % interval, from `pairs` alternating pairs after one that is dropped."""
    directory = resolve_model(name).directory
    sides = (ours(directory), theirs(directory))
    same = sides[0](LONG) == sides[1](LONG)
    if not same:
        raise SystemExit(f"{name}: the two do not decode the same ids; their speeds cannot be compared")
    values = [tuple(map(rate, sides if pair % 2 else sides[::-1])) for pair in range(pairs + 1)][1:]
    ordered = [value if pair % 2 == 0 else value[::-1] for pair, value in enumerate(values)]
    logs = [math.log(a / b) for a, b in ordered]
    mean = math.fsum(logs) / pairs
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in logs) / (pairs - 1))
    half = float(stdtrit(pairs - 1, 0.975)) * spread / math.sqrt(pairs)
    return {
        "name": "decode",
        "model": name,
        "dtype": "F32",
        "threads": torch.get_num_threads(),
        "unit": "tok/s",
        "engine": round(sorted(a for a, _ in ordered)[pairs // 2], 1),
        "transformers": round(sorted(b for _, b in ordered)[pairs // 2], 1),
        "ratio": round(math.exp(mean), 3),
        "interval": [round(math.exp(mean - half), 3), round(math.exp(mean + half), 3)],
        "pairs": pairs,
    }


def main() -> None:
    """Print one line a model; write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    rows = [compare(name, chosen.pairs) for name in chosen.models]
    for row in rows:
        print(
            f"{row['model']}: {row['engine']} tok/s, transformers {row['transformers']}, "
            f"ratio {row['ratio']} ({row['interval'][0]} to {row['interval'][1]})"
        )
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
