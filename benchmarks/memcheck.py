"""compute-sanitizer's memcheck on a short generation, its leak records beside those of an empty torch program.

    python benchmarks/memcheck.py DIRECTORY [--seconds 150] [--read]

Leaves `generation.txt` and `empty.txt`, the tool's own words, and ends with 1 on an error, or on a leak record in the
generation whose kind and place the empty program does not have. `--read` reads what lies in the directory instead.

The generation is run without the tool first (`untooled.txt`): it compiles the kernels, so that no compiler runs
beneath the tool, and says whether the program itself works. It tells each stage as it comes, and where its threads
stand shortly before its time is over. Where the tool has no summary of it, `torch.txt` is the same without the engine's
own kernels.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bounded import run_bounded

from conformance.corpus.models import FIXTURE

TOOL = (
    "compute-sanitizer", "--tool", "memcheck", "--leak-check", "full", "--target-processes", "application-only",
    "--print-limit", "1000",
)  # fmt: skip
STACKS_AFTER = "MEMCHECK_STACKS_AFTER"
LEFT_FOR_STACKS_S, GRACE_S = 20.0, 10.0
BEGIN = f"""
import faulthandler, os, time
faulthandler.dump_traceback_later(float(os.environ[{STACKS_AFTER!r}]))
began = time.monotonic()
def stage(name, *told):
    print(f"stage {{time.monotonic() - began:6.1f}} s: {{name}}", *told, flush=True)
stage("begun")
import torch
stage("torch imported")
"""
EMPTY = f"""{BEGIN}
torch.zeros(1, device='cuda')
torch.cuda.synchronize()
stage("ended")
faulthandler.cancel_dump_traceback_later()
"""
GENERATION = f"""{BEGIN}
from reference_engine.device import Device
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel
stage("engine imported")
with Device(0) as device:
    stage("device opened")
    # Recording takes memory from the caching allocator, without which this runs; eager steps are the same kernels.
    model = SafeTensorsCudaModel.from_safetensors({str(FIXTURE)!r}, device, graphs=False)
    stage("loaded; decodes by", type(model.decoder.step).__name__, model.decoder.declined)
    found = model.generate(GenerationRequest([5, 17, 33, 60, 12, 9, 41, 7], 5, ignore_eos=True))
    stage("generated", len(found.ids))
    device.synchronize()
    model.unload()
    stage("unloaded")
stage("ended")
faulthandler.cancel_dump_traceback_later()
"""
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) errors?")
LEAK = re.compile(r"Leaked ([\d,]+) bytes at ")
STAGE = re.compile(r"^stage +(.*)$", re.MULTILINE)
FRAMES = 5
FRAME = re.compile(r"Host Frame: ?(\S+)")


def run(
    program: str, target: Path, seconds: float, cache: Path, *, tool: bool = True, env: Mapping[str, str] | None = None
) -> str:
    """Run a program, under the tool or without; what was said, which is also left in `target`. Nothing goes on running.

    Without the caching allocator every tensor is an allocation of its own, whose bounds the tool knows. Kernels come
    from a cache of its own, which nobody else waits for.
    """
    command = [*(TOOL if tool else ()), sys.executable, "-c", program]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "TRITON_CACHE_DIR": str(cache)} | dict(env or {})
    environment[STACKS_AFTER] = str(max(seconds - LEFT_FOR_STACKS_S, seconds / 2))
    with target.open("w+b") as file:
        # The tool may end before what it watches; one that is cut gets time for its summary.
        ended = run_bounded(command, file, seconds, cwd=Path.cwd(), env=environment, grace=GRACE_S)
        file.seek(0, os.SEEK_END)
        file.write(f"========= {ended}\n".encode())
    return target.read_text(encoding="utf-8", errors="replace")


def check(directory: Path, seconds: float) -> None:
    """Both programs, each for so many seconds at most; the second without the engine's kernels where it has no end."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch)
        run(EMPTY, directory / "empty.txt", seconds, cache)
        run(GENERATION, directory / "untooled.txt", seconds, cache, tool=False)
        if errors(run(GENERATION, directory / "generation.txt", seconds, cache)) is None:
            run(GENERATION, directory / "torch.txt", seconds, cache, env={"APR_FUSED": "0"})


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
    if not chosen.read:
        check(chosen.directory, chosen.seconds)
    absent = [str(text) for text in texts if not text.is_file()]
    if absent:
        raise SystemExit(f"no record of a run on a GPU: {', '.join(absent)}")
    empty, ours = (text.read_text(encoding="utf-8", errors="replace") for text in texts)
    for name, text in (("empty program", empty), ("generation", ours)):
        if errors(text) is None:
            print(f"{name}: no summary; its last line: {(text.strip().splitlines() or ['nothing'])[-1]}")
            print(f"{name}: its last stage: {(STAGE.findall(text) or ['none'])[-1]}")
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
