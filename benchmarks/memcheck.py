"""compute-sanitizer's memcheck on a short generation, its leak records beside those of an empty torch program.

    python benchmarks/memcheck.py DIRECTORY [--seconds 150] [--read]

Leaves `generation.txt` and `empty.txt`, the tool's own words, and ends with 1 on an error, or on a leak record in the
generation whose kind and place the empty program does not have. `--read` reads what lies in the directory instead.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bounded import run_bounded

from conformance.corpus.models import FIXTURE

EMPTY = "import torch; torch.zeros(1, device='cuda'); torch.cuda.synchronize()"
GENERATION = f"""
from reference_engine.device import Device
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel
with Device(0) as device:
    # Recording takes memory from the caching allocator, without which this runs; eager steps are the same kernels.
    model = SafeTensorsCudaModel.from_safetensors({str(FIXTURE)!r}, device, graphs=False)
    print("decodes by", type(model.decoder.step).__name__, model.decoder.declined)
    print(len(model.generate(GenerationRequest([5, 17, 33, 60] * 15, 12, ignore_eos=True)).ids))
    device.synchronize()
    model.unload()
"""
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?")
LEAK = re.compile(r"Leaked ([\d,]+) bytes at ")
FRAMES = 5
FRAME = re.compile(r"Host Frame: ?(\S+)")


def check(program: str, target: Path, seconds: float) -> str:
    """Run a program under the tool; what it said, which is also left in `target`. Nothing of it goes on running."""
    command = ["compute-sanitizer", "--tool", "memcheck", "--leak-check", "full", sys.executable, "-c", program]
    with tempfile.TemporaryDirectory() as scratch, target.open("w+b") as file:
        # Without the caching allocator every tensor is an allocation of its own, whose bounds the tool knows. Kernels
        # come from a cache of its own, which nobody else waits for.
        environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "TRITON_CACHE_DIR": scratch}
        # The tool may end before what it watches.
        ended = run_bounded(command, file, seconds, cwd=Path.cwd(), env=environment)
        file.seek(0, os.SEEK_END)
        file.write(f"========= {ended}\n".encode())
    return target.read_text(encoding="utf-8", errors="replace")


def leaks(text: str) -> Counter[str]:
    """Leak records by their size and the first host frames below them."""
    records = LEAK.split(text)[1:]
    sizes, bodies = records[::2], records[1::2]
    return Counter(
        f"{size} bytes: {' < '.join(FRAME.findall(body)[:FRAMES])}" for size, body in zip(sizes, bodies, strict=True)
    )


def errors(text: str) -> int | None:
    """Errors that are no leaks, by the tool's summary; None if it did not get to one."""
    match = SUMMARY.search(text)
    return None if match is None else int(match[1]) - leaks(text).total()


def main() -> None:
    """Check both, compare, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--read", action="store_true", help="Run nothing: read what an earlier run left.")
    chosen = parser.parse_args()
    texts = [chosen.directory / name for name in ("empty.txt", "generation.txt")]
    if chosen.read:
        absent = [str(text) for text in texts if not text.is_file()]
        if absent:
            raise SystemExit(f"no record of a run on a GPU: {', '.join(absent)}")
        empty, ours = (text.read_text(encoding="utf-8", errors="replace") for text in texts)
    else:
        chosen.directory.mkdir(parents=True, exist_ok=True)
        empty, ours = (
            check(program, text, chosen.seconds) for program, text in zip((EMPTY, GENERATION), texts, strict=True)
        )
    for name, text in (("empty program", empty), ("generation", ours)):
        if errors(text) is None:
            print(f"{name}: no summary; its last line: {(text.strip().splitlines() or ['nothing'])[-1]}")
    beyond = leaks(ours) - leaks(empty)
    print(f"empty program: {errors(empty)} errors, {leaks(empty).total()} leak records")
    own = beyond.total()
    print(f"generation: {errors(ours)} errors, {leaks(ours).total()} leak records, {own} that the empty one lacks")
    if errors(ours) is not None and errors(empty) is not None:
        print(f"beyond an empty program: {(errors(ours) or 0) + own}")
    for record, count in beyond.items():
        print(f"{count} x {record}")
    if errors(ours) != 0 or errors(empty) is None or beyond:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
