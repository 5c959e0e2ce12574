"""The parts of the benchmark; each call runs one and prints its rows as a JSON list on the last line.

python benchmarks/parts.py PART DTYPE|MODEL LIMITS
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import torch
from rows import Row, measured, missing

from conformance.corpus.geometry import geometry_checkpoint
from conformance.corpus.models import FIXTURE
from reference_engine.device import Device
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel

GEOMETRY = "Qwen2.5-1.5B geometry, random weights, batch 1"
PROMPT, SHORT, LONG = 128, 16, 256
CONTEXT, PREFILL, FIRST = 4096, 1000, 32
VOCABULARY = 150_000
BUFFER = 1 << 30
POLL_SECONDS = 0.002


def prompt(count: int) -> list[int]:
    """Token ids without a pattern."""
    return [(37 * i * i + 11) % VOCABULARY for i in range(count)]


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time from an idle device to an idle device."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def rates(run: Callable[[int], object], repeats: int, short: int = SHORT, long: int = LONG) -> list[float]:
    """Tokens a second as the difference of two lengths, after a run of each that is dropped."""
    for count in (short, long, long):
        run(count)
    pairs = [[seconds_of(lambda n=n: run(n)) for n in (short, long)] for _ in range(repeats)]
    return [(long - short) / (longer - shorter) for shorter, longer in pairs]


def limits(_: str, __: Sequence[Row]) -> list[Row]:
    """Reading device memory, and copying from page-locked host memory; the name of the device."""
    device = torch.zeros(BUFFER, device="cuda")
    read = [4 * BUFFER / seconds_of(device.sum) / 1e9 for _ in range(12)]
    host = torch.empty(BUFFER, dtype=torch.uint8, pin_memory=True)
    target = device.view(torch.uint8)[:BUFFER]
    copied = [BUFFER / seconds_of(lambda: target.copy_(host, non_blocking=True)) / 1e9 for _ in range(12)]
    name = torch.cuda.get_device_name(0)
    # The first ones warm up; a limit is what the machine can do, so the best half counts.
    best = [sorted(values[2:])[5:] for values in (read, copied)]
    return [
        Row("device", "machine", "", 1.0, "", note=name),
        measured("read", "machine", "", best[0], "GB/s", note="sum of 4.3 GB of F32"),
        measured("pinned_link", "machine", "", best[1], "GB/s", note="1.07 GB, host to device"),
    ]


def value_of(rows: Sequence[Row], name: str) -> float | None:
    """A limit by its name, in bytes a second."""
    return next((row.value * 1e9 for row in rows if row.name == name and row.value is not None), None)


def decode(dtype: str, found: Sequence[Row]) -> list[Row]:
    """Ours: decoding after a short and a long prompt, and the time to the first token of two prompts."""
    model = SafeTensorsCudaModel.from_safetensors(geometry_checkpoint(dtype), Device(0))
    config, weights = model.config, model.weights
    read = value_of(found, "read")
    step = weights.nbytes - (0 if weights.embedding is weights.lm_head else weights.embedding.nbytes)
    pair = 2 * config.num_layers * config.num_kv_heads * config.head_dim * weights.dtype.itemsize

    def run(length: int) -> Callable[[int], object]:
        ids = prompt(length)
        return lambda count: model.generate(GenerationRequest(ids, count, ignore_eos=True))

    def limit(length: float) -> float | None:
        return read and read / (step + pair * length)

    rows = [
        measured("decode", "ours", dtype, rates(run(PROMPT), 5), "tok/s", limit(PROMPT + (SHORT + LONG) / 2), GEOMETRY),
        measured("decode_ctx_4096", "ours", dtype, rates(run(CONTEXT), 3, 4, 100), "tok/s", limit(CONTEXT + 52)),
    ]
    for name, length in (("first_token_32", FIRST), (f"prefill_{PREFILL}", PREFILL)):
        for _ in range(3):
            run(length)(1)
        times = [seconds_of(lambda length=length: run(length)(1)) * 1000 for _ in range(10)]
        rows.append(measured(name, "ours", dtype, times, "ms", read and step / read * 1000, "limit: weights read once"))
    return rows


def load(dtype: str, found: Sequence[Row]) -> list[Row]:
    """Ours: a checkpoint in the page cache to a model that is ready."""
    path, device, link = geometry_checkpoint(dtype), Device(0), value_of(found, "pinned_link")
    times = []
    for _ in range(6):
        began = time.perf_counter()
        model = SafeTensorsCudaModel.from_safetensors(path, device)
        device.synchronize()
        times.append(time.perf_counter() - began)
        nbytes = model.weights.nbytes
        model.unload()
    limit = link and nbytes / link
    first = measured("load_first", "ours", dtype, times[:1], "s", limit, "first of its process: slabs are page-locked")
    return [measured("load", "ours", dtype, times[1:], "s", limit, f"{nbytes / 1e9:.3f} GB, warm page cache"), first]


def vram(dtype: str, _: Sequence[Row]) -> list[Row]:
    """Ours: the peak of NVML's used bytes over a load, 1,000 ids of prompt and 384 new, net of an empty context."""
    with _peak() as idle:
        pass
    device = Device(0)
    with _peak() as empty:
        time.sleep(0.1)
    with _peak() as peak:
        model = SafeTensorsCudaModel.from_safetensors(geometry_checkpoint(dtype), device)
        model.generate(GenerationRequest(prompt(PREFILL), 384, ignore_eos=True))
        device.synchronize()
    net, weights, context = (peak[0] - empty[0]) / 1e9, model.weights.nbytes / 1e9, (empty[0] - idle[0]) / 1e9
    note = f"weights + {net - weights:.3f} GB; the empty context takes {context:.3f} GB; NVML, device delta"
    return [measured("vram_peak", "ours", dtype, [net], "GB", weights, note)]


@contextmanager
def _peak() -> Iterator[list[int]]:
    """The highest number of used bytes on device 0 during the block, by NVML's memory record of version 2."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    peak, ended = [0], threading.Event()

    def look() -> None:
        used = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used
        peak[0] = max(peak[0], int(used))

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            look()

    watcher = threading.Thread(target=watch)
    look()
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()
        look()


def start(dtype: str, _: Sequence[Row]) -> list[Row]:
    """Ours: `apr run` from the start of the process to its first text, beyond `import torch` alone."""
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model"
        model.mkdir()
        for source in (FIXTURE, geometry_checkpoint(dtype)):
            for file in source.iterdir():
                # The geometry has no tokenizer; the fixture lends its own.
                (model / file.name).unlink(missing_ok=True)
                (model / file.name).symlink_to(file.resolve())
        caches = {name: str(Path(scratch) / name) for name in ("TRITON_CACHE_DIR", "CUDA_CACHE_PATH")}
        command = [
            sys.executable,
            "-m",
            "reference_engine.cli",
            "run",
            str(model),
            "hello",
            "--raw",
            "--gpu",
            "-n",
            "4",
        ]
        imported = [_seconds([sys.executable, "-c", "import torch; print(torch, flush=True)"], {}) for _ in range(3)]
        base = statistics.median(imported)
        rows = [measured("import_torch", "machine", dtype, imported, "s")]
        cold, warm = [], []
        for _ in range(2):
            for path in caches.values():
                shutil.rmtree(path, ignore_errors=True)
            cold.append(_seconds(command, caches))
            warm.append(_seconds(command, caches))
        for name, times, allowed in (("start_cold", cold, 2.5), ("start_warm", warm, 1.0)):
            note = f"import torch + {statistics.fmean(times) - base:.2f} s, wanted at most + {allowed} s"
            rows.append(measured(name, "ours", dtype, times, "s", base, note))
        return rows


def _seconds(command: Sequence[str], caches: dict[str, str]) -> float:
    """From the start of a process to the first byte of its output."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | caches) as process:
        assert process.stdout is not None, "it is a pipe"
        first = process.stdout.read(1)
        seconds = time.perf_counter() - began
        _, complaint = process.communicate()
    if not first or process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}: {complaint.decode(errors='replace')}")
    return seconds


def peer_load(dtype: str, found: Sequence[Row]) -> list[Row]:
    """Straight to the device by safetensors."""
    from safetensors.torch import load_file

    path, link = geometry_checkpoint(dtype) / "model.safetensors", value_of(found, "pinned_link")
    torch.zeros(1, device="cuda")
    times = []
    for _ in range(4):
        times.append(seconds_of(lambda: load_file(path, device="cuda")))
        torch.cuda.empty_cache()
    return [measured("load", "safetensors load_file", dtype, times[1:], "s", link and path.stat().st_size / link)]


def peer_eager(dtype: str, _: Sequence[Row]) -> list[Row]:
    """By transformers as it comes: decoding, and the time to the first token."""
    generate = _transformers(dtype)
    rows = [
        measured("decode", "transformers eager", dtype, rates(lambda n: generate(prompt(PROMPT), n), 3, 8, 72), "tok/s")
    ]
    for name, length in (("first_token_32", FIRST), (f"prefill_{PREFILL}", PREFILL)):
        times = [seconds_of(lambda length=length: generate(prompt(length), 1)) * 1000 for _ in range(6)][1:]
        rows.append(measured(name, "transformers eager", dtype, times, "ms"))
    return rows


def peer_compiled(dtype: str, _: Sequence[Row]) -> list[Row]:
    """By transformers with a static cache, which it compiles."""
    generate = _transformers(dtype, cache_implementation="static")
    found = rates(lambda n: generate(prompt(PROMPT), n), 3, 8, 136)
    return [measured("decode", "transformers static + compile", dtype, found, "tok/s", note="compile time not counted")]


def _transformers(dtype: str, **settings: Any) -> Callable[[Sequence[int], int], object]:
    from transformers import AutoModelForCausalLM

    kind = {"F32": torch.float32, "BF16": torch.bfloat16}[dtype]
    path = geometry_checkpoint(dtype)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=kind, local_files_only=True).to("cuda").eval()

    def generate(ids: Sequence[int], count: int) -> object:
        tokens = torch.tensor([list(ids)], device="cuda")
        with torch.inference_mode():
            return model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, min_new_tokens=count,
                do_sample=False, eos_token_id=None, pad_token_id=0, **settings,
            )  # fmt: skip

    return generate


def peer_llama_cpp(dtype: str, _: Sequence[Row]) -> list[Row]:
    """llama.cpp through the driver of the trials, where its library was built for CUDA (`llama_cpp_cuda.sh`)."""
    if find_spec("llama_cpp") is None:
        return [missing("decode", "llama.cpp", dtype, "llama-cpp-python is not installed")]
    from conformance.engines.llama_cpp_binding import device_count
    from conformance.engines.llama_cpp_engine import LlamaCppEngine
    from conformance.protocol.messages import PROTOCOL_VERSION, Generate, Initialize, ModelLoad

    with tempfile.TemporaryDirectory() as scratch:
        engine = LlamaCppEngine()
        told = engine.initialize(Initialize(scratch, PROTOCOL_VERSION, 0, 1))
        if not device_count():
            return [missing("decode", "llama.cpp", dtype, f"{told.version} has no library for CUDA")]
        model = engine.model_load(ModelLoad(str(geometry_checkpoint(dtype)), "cuda:0", dtype)).handle

        def generate(count: int) -> object:
            return engine.generate(Generate(model, count, prompt_ids=prompt(PROMPT), ignore_eos=True))

        return [measured("decode", "llama.cpp", dtype, rates(generate, 5), "tok/s", note=f"{told.version}, {GEOMETRY}")]


def cpu(model: str, _: Sequence[Row]) -> list[Row]:
    """Decoding on the CPU beside transformers, in alternating pairs; the ratio is that of the pairs."""
    from decode_cpu import compare

    found = compare(model, 5)
    note = f"{model}, {found['threads']} threads, CPU"
    return [
        Row("decode", "ours", "F32", found["engine"], "tok/s", repeats=found["pairs"], note=note),
        Row("decode", "transformers", "F32", found["transformers"], "tok/s", repeats=found["pairs"], note=note),
        Row(
            "ratio decode", "ours / transformers", "F32", found["ratio"], "ratio", interval=tuple(found["interval"]),
            repeats=found["pairs"], note=note,
        ),
    ]  # fmt: skip


PARTS = {
    part.__name__: part
    for part in (limits, decode, load, vram, start, peer_load, peer_eager, peer_compiled, peer_llama_cpp, cpu)
}


def main() -> None:
    """Run a part."""
    name, what, found = sys.argv[1:4]
    rows = PARTS[name](what, msgspec.json.decode(found, type=list[Row]))
    print(msgspec.json.encode(rows).decode())


if __name__ == "__main__":
    main()
