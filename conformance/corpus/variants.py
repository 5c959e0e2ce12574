"""The same model in another form: dtype, shards, untied head, more or less padding, GGUF, APR.

Each variant is derived from a checkpoint when first needed and kept in the cache under the checkpoint's hash.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from conformance.corpus.apr_writing import APR_NAME, write_apr
from conformance.corpus.cache import cached
from conformance.corpus.checkpoint import CheckpointInvalid, fingerprint, read_json, side_files, weight_files
from conformance.corpus.gguf_writing import GGUF_NAME, write_gguf
from conformance.corpus.seeded_weights import from_bf16, to_bf16
from conformance.corpus.weights_file import Array, Piece, TensorPlan, read_tensors, write_weights

VERSION = 2
SHARDS = 3
PADDING = 64
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

Tensors = dict[str, tuple[str, Array]]


def derive(source: Path, variant: str) -> Path:
    """The path to load for a variant of the checkpoint in `source`: a directory, or the file of a GGUF or APR.

    Args:
        source: A checkpoint directory in F32, F16 or BF16.
        variant: One of `VARIANTS`.

    Raises:
        CheckpointInvalid: The source cannot be read, or the variant makes no sense for it.
    """
    build = VARIANTS[variant]
    sha256 = fingerprint(source).sha256
    directory = cached(
        f"variant-{VERSION}-{sha256[:16]}-{variant}",
        lambda made: build(source, made),
        origin=f"{variant} of checkpoint {sha256}",
    )
    single = {"gguf": GGUF_NAME, "apr": APR_NAME}.get(variant.split("-", maxsplit=1)[0])
    return directory / single if single else directory


def read_checkpoint(source: Path) -> Tensors:
    """Every tensor of a checkpoint, over all its shards: dtype and values (BF16 as uint16 bits), mapped."""
    return {name: (dtype, values) for path in weight_files(source) for name, dtype, values in read_tensors(path)}


def convert(values: Array, dtype: str, wanted: str) -> Array:
    """Values in another dtype, rounded to nearest even; BF16 as uint16 bits."""
    if dtype == wanted:
        return values
    wide: npt.NDArray[np.float32] = from_bf16(values) if dtype == "BF16" else values.astype(np.float32)
    if wanted == "BF16":
        return to_bf16(wide)
    with np.errstate(over="ignore"):
        return wide.astype(np.float16) if wanted == "F16" else wide


def _as_dtype(source: Path, made: Path, wanted: str) -> None:
    tensors = read_checkpoint(source)
    plans = {name: TensorPlan(wanted, values.shape) for name, (_, values) in tensors.items()}
    write_weights(made / "model.safetensors", plans, _converted(tensors, plans))
    _write_side_files(source, made, torch_dtype=_TORCH_NAMES[wanted])


def _converted(tensors: Tensors, plans: dict[str, TensorPlan]) -> Iterator[Callable[[], Piece]]:
    for name, plan in plans.items():
        yield partial(_convert_piece, name, plan.dtype, *tensors[name])


def _convert_piece(name: str, wanted: str, dtype: str, values: Array) -> Piece:
    return Piece(name, 0, convert(values.reshape(-1), dtype, wanted))


def _sharded(source: Path, made: Path) -> None:
    tensors = read_checkpoint(source)
    total = sum(values.nbytes for _, values in tensors.values())
    weight_map, begun = {}, 0
    for name, (_, values) in sorted(tensors.items()):
        weight_map[name] = f"model-{begun * SHARDS // total + 1:05d}-of-{SHARDS:05d}.safetensors"
        begun += values.nbytes
    for shard in sorted(set(weight_map.values())):
        _write_unchanged(made / shard, {name: tensors[name] for name in tensors if weight_map[name] == shard})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(made / "model.safetensors.index.json", index)
    _write_side_files(source, made)


def _untied(source: Path, made: Path) -> None:
    tensors = read_checkpoint(source)
    if HEAD in tensors:
        raise CheckpointInvalid(source, "has an lm_head of its own already")
    _write_unchanged(made / "model.safetensors", tensors | {HEAD: tensors[EMBEDDING]})
    _write_side_files(source, made, tie_word_embeddings=False)


def _with_rows(source: Path, made: Path, rows: int) -> None:
    """The same model with so many rows in embedding and head: cut, or filled with zeros."""
    tensors = read_checkpoint(source)
    for name in (EMBEDDING, HEAD):
        if name in tensors:
            dtype, values = tensors[name]
            resized = np.zeros((rows, values.shape[1]), values.dtype)
            resized[: len(values)] = values[:rows]
            tensors[name] = (dtype, resized)
    _write_unchanged(made / "model.safetensors", tensors)
    _write_side_files(source, made, vocab_size=rows)


def _extended(source: Path, made: Path) -> None:
    _with_rows(source, made, read_json(source / "config.json")["vocab_size"] + PADDING)


def _trimmed(source: Path, made: Path) -> None:
    if not (source / "tokenizer.json").is_file():
        raise CheckpointInvalid(source, "has no tokenizer.json that says how many rows are in use")
    _with_rows(source, made, Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab_size())


def as_gguf(source: Path, made: Path, dtype: str, alignment: int | None = None) -> None:
    """Write the checkpoint in `source` as a GGUF file of this dtype into `made`; see `write_gguf`."""
    tensors = read_checkpoint(source)
    write_gguf(
        made / GGUF_NAME,
        source,
        {name: convert(values, stored, "F32" if values.ndim == 1 else dtype)
         for name, (stored, values) in tensors.items()},
        dtype,
        alignment,
    )  # fmt: skip


def _write_unchanged(path: Path, tensors: Tensors) -> None:
    plans = {name: TensorPlan(dtype, values.shape) for name, (dtype, values) in tensors.items()}
    write_weights(path, plans, _converted(tensors, plans))


def _write_side_files(source: Path, made: Path, **changes: Any) -> None:
    for path in side_files(source):
        if not path.name.endswith(".index.json"):
            shutil.copyfile(path, made / path.name)
    config = read_json(source / "config.json")
    if "torch_dtype" in changes:
        config.pop("dtype", None)
    _write_json(made / "config.json", config | changes)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


VARIANTS: dict[str, Callable[[Path, Path], None]] = {
    "f32": lambda source, made: _as_dtype(source, made, "F32"),
    "f16": lambda source, made: _as_dtype(source, made, "F16"),
    "bf16": lambda source, made: _as_dtype(source, made, "BF16"),
    "sharded": _sharded,
    "untied": _untied,
    "extended": _extended,
    "trimmed": _trimmed,
    "gguf-f32": lambda source, made: as_gguf(source, made, "F32"),
    "gguf-f16": lambda source, made: as_gguf(source, made, "F16"),
    "gguf-bf16": lambda source, made: as_gguf(source, made, "BF16"),
    "apr": lambda source, made: write_apr(made / APR_NAME, source, read_checkpoint(source)),
}
