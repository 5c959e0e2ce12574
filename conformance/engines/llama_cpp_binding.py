"""llama.cpp's C interface through llama-cpp-python's declarations: one model, one sequence, tokens and logits."""

from __future__ import annotations

# SAFETY: for types and buffers of llama-cpp-python's own declarations; the library checks none of them, so we do.
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as c
import numpy as np
import numpy.typing as npt

CHUNK = 512
LONGEST = 8192
_ERROR_LEVEL = 4
_ALL_LAYERS = 999
_GPU = 1

Logits = npt.NDArray[np.float32]


class ModelRefused(Exception):
    """llama.cpp does not load a file; what it logged as errors is the reason."""

    def __init__(self, path: Path, logged: Sequence[str]) -> None:
        self.path, self.logged = path, tuple(logged)
        super().__init__(f"{path}: {'; '.join(logged) or 'refused without a word'}")


class DecodeFailed(Exception):
    """`llama_decode` answered with another code than 0."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"llama_decode answered {code}")


class TooLong(Exception):
    """More positions than the context has."""

    def __init__(self, positions: int, limit: int) -> None:
        self.positions, self.limit = positions, limit
        super().__init__(f"{positions} positions, more than the context's {limit}")


class NoTokenizer(Exception):
    """Text for a model whose file has no tokenizer."""

    def __init__(self) -> None:
        super().__init__("the file has no tokenizer: give ids")


class Log:
    """Keeps the library's errors of the moment; everything else that it says is dropped."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._callback = c.llama_log_callback(self._take)
        c.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _take(self, level: int, text: bytes, _user: object) -> None:
        if level == _ERROR_LEVEL and (line := text.decode(errors="replace").strip()):
            self.errors = [*self.errors[-7:], line]


class Model:
    """A loaded GGUF file and a context of one sequence; keys and values are kept in F32.

    Attributes:
        positions: Length of the context.
        vocab_size: Rows of the head.
        has_tokenizer: Whether the file has one; asked for text without one, the library ends the process.
        on_gpu: Whether its layers were put on a CUDA device.
    """

    def __init__(self, path: Path, log: Log, *, gpu: int | None, threads: int) -> None:
        self.on_gpu = gpu is not None
        log.errors = []
        self._model = c.llama_model_load_from_file(str(path).encode(), _model_params(gpu))
        if not self._model:
            raise ModelRefused(path, log.errors)
        self.positions = min(c.llama_model_n_ctx_train(self._model), LONGEST)
        self._context = c.llama_init_from_model(self._model, _context_params(self.positions, threads, gpu))
        if not self._context:
            c.llama_model_free(self._model)
            raise ModelRefused(path, log.errors)
        self._vocab = c.llama_model_get_vocab(self._model)
        self.vocab_size = int(c.llama_vocab_n_tokens(self._vocab))
        self.has_tokenizer = c.llama_vocab_type(self._vocab) != c.LLAMA_VOCAB_TYPE_NONE
        self._batch = c.llama_batch_init(CHUNK, 0, 1)

    def close(self) -> None:
        """Free context and weights."""
        c.llama_batch_free(self._batch)
        c.llama_free(self._context)
        c.llama_model_free(self._model)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return int(c.llama_model_size(self._model))

    def restart(self) -> None:
        """Forget the sequence."""
        c.llama_memory_clear(c.llama_get_memory(self._context), True)

    def push(self, ids: Sequence[int], begin: int, *, wanted: int) -> Iterator[Logits]:
        """Push ids from position `begin` on; the logits of the last `wanted`, each chunk [n, vocab], owned by nobody.

        A chunk is overwritten by the next one.

        Raises:
            TooLong: the context has fewer positions.
            DecodeFailed: the library refuses.
        """
        if begin + len(ids) > self.positions:
            raise TooLong(begin + len(ids), self.positions)
        first_wanted = len(ids) - wanted
        for at in range(0, len(ids), CHUNK):
            chunk = ids[at : at + CHUNK]
            self._fill(chunk, begin + at, first_wanted - at)
            code = c.llama_decode(self._context, self._batch)
            if code != 0:
                raise DecodeFailed(code)
            rows = at + len(chunk) - max(first_wanted, at)
            if rows > 0:
                pointer = c.llama_get_logits(self._context)
                # SAFETY: llama.cpp keeps `rows` rows of logits until its next decode; the caller copies them before.
                yield np.ctypeslib.as_array(pointer, shape=(rows, self.vocab_size))

    def _fill(self, ids: Sequence[int], begin: int, first_wanted: int) -> None:
        batch: Any = self._batch
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index] = token, begin + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index >= first_wanted

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text; names of special tokens in it become their ids if `special`.

        Raises:
            NoTokenizer: the file has none.
        """
        if not self.has_tokenizer:
            raise NoTokenizer
        raw = text.encode()
        room = len(raw) + 8
        ids = (c.llama_token * room)()
        count = c.llama_tokenize(self._vocab, raw, len(raw), ids, room, False, special)
        return list(ids[:count])

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of ids, special tokens left out unless told otherwise; empty where the file has no tokenizer."""
        if not self.has_tokenizer:
            return ""
        return b"".join(self._piece(token, special=special) for token in ids).decode(errors="replace")

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = c.llama_token_to_piece(self._vocab, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def is_end(self, token: int) -> bool:
        """Whether generation ends with this token."""
        return bool(c.llama_vocab_is_eog(self._vocab, token))


def device_count() -> int:
    """How many GPUs the library was built for and sees."""
    from llama_cpp._ggml import libggml

    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    devices = (libggml.ggml_backend_dev_get(index) for index in range(libggml.ggml_backend_dev_count()))
    return sum(libggml.ggml_backend_dev_type(device) == _GPU for device in devices)


def _model_params(gpu: int | None) -> Any:
    params: Any = c.llama_model_default_params()
    params.n_gpu_layers = 0 if gpu is None else _ALL_LAYERS
    params.split_mode = c.LLAMA_SPLIT_MODE_NONE
    params.main_gpu = gpu or 0
    return params


def _context_params(positions: int, threads: int, gpu: int | None) -> Any:
    params: Any = c.llama_context_default_params()
    params.n_ctx = positions
    params.n_batch = params.n_ubatch = CHUNK
    params.n_threads = params.n_threads_batch = threads
    params.type_k = params.type_v = c.GGML_TYPE_F32
    params.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.offload_kqv = params.op_offload = gpu is not None
    return params
