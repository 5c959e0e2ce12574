"""llama.cpp's HTTP server out of the wheel xllamacpp: `python -m conformance.engines.xllamacpp_server GGUF PORT`."""

from __future__ import annotations

import signal
import sys

import xllamacpp


def settings(path: str, port: int) -> xllamacpp.CommonParams:
    """One slot, one thread, keys and values in F32, on the CPU."""
    made = xllamacpp.CommonParams()
    made.model.path, made.hostnames, made.port = path, ["127.0.0.1"], port
    made.n_ctx, made.n_parallel, made.n_gpu_layers = 4096, 1, 0
    made.warmup = False
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = 1
    made.cache_type_k = made.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    made.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return made


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = xllamacpp.Server(settings(sys.argv[1], int(sys.argv[2])))
    signal.pause()
