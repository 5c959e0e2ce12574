"""The same checkpoint as it may lie elsewhere: behind links, on an odd path, beside a stray file, in F16."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from checks.support.checkpoints import copy_of, tensors_of
from checks.support.quality import between, first_golden, loaded_from
from checks.support.tensors import write_safetensors
from checks.support.weights import WEIGHTS, negated
from conformance.corpus.models import resolve_model
from conformance.corpus.variants import derive
from conformance.protocol.messages import Generate, Logits
from conformance.trial.stand import AnswerFellShort, Stand

_CHANGED = "model.layers.0.mlp.down_proj.weight"
_PROBE = range(3, 27)
Halves = dict[str, tuple[list[int], np.ndarray]]


def observe_arrangements(stand: Stand) -> None:
    """Observe `answers/<arrangement>`: golden ids from links as in a cache, and from shards beside a stray one."""
    golden = first_golden(stand)
    for name, directory in (("links", _linked(stand)), ("stray shard", _beside_a_stray(stand))):
        with loaded_from(stand, directory) as model:
            request = Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
            observed = list(stand.engine.call("generate", request).ids)
        stand.equal(f"answers/{name}", expected=list(golden.ids), observed=observed)


def _linked(stand: Stand) -> Path:
    """As caches of models keep it: links with the files' names to blobs with other names; the path has a blank."""
    blobs, target = stand.directory / "blobs", stand.directory / "snapshots" / "d\u00e9j\u00e0 vu"
    blobs.mkdir()
    target.mkdir(parents=True)
    for number, path in enumerate(sorted(stand.model_directory.iterdir())):
        if path.is_file():
            blob = blobs / f"{number:064x}"
            _same_file(path, blob)
            (target / path.name).symlink_to(Path("../../blobs") / blob.name)
    return target


def _same_file(source: Path, target: Path) -> None:
    """A file with the same bytes: the very same one where the file system allows it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _beside_a_stray(stand: Stand) -> Path:
    """Shards, and a file of the same kind that the index does not name, with one tensor of theirs negated."""
    target = stand.directory / "shards"
    shutil.copytree(derive(stand.model_directory, "sharded"), target)
    shards = sorted(target.glob("*.safetensors"))
    for shard in shards:
        tensors = tensors_of(shard)
        if _CHANGED in tensors:
            dtype, shape, payload = tensors[_CHANGED]
            stray = shards[-1].with_name(shards[-1].name.replace("model-0000", "model-0009"))
            write_safetensors(stray, {_CHANGED: (dtype, shape, negated(dtype, payload))})
    return target


def observe_widened(stand: Stand) -> None:
    """Observe `widened`: weights with every bit that F16 has, as a file of F16 and as one of F32, computed in F32.

    The values of a checkpoint in BF16 would not tell: what is lost of F16 on the way through BF16 they never had.
    """
    halves = {
        name: (shape, np.frombuffer(payload, "<f4").astype("<f2"))
        for name, (_, shape, payload) in tensors_of(resolve_model("random").directory / WEIGHTS).items()
    }
    first, second = (_logits_of(stand, halves, *written) for written in (("F16", "<f2"), ("F32", "<f4")))
    stand.observe(between("widened", first, second))


def _logits_of(stand: Stand, halves: Halves, dtype: str, item: str) -> np.ndarray:
    """Logits of the model with random weights, with these ones written in this dtype."""
    directory = copy_of(stand, f"as-{dtype}", resolve_model("random").directory)
    tensors = {name: (dtype, shape, values.astype(item).tobytes()) for name, (shape, values) in halves.items()}
    write_safetensors(directory / WEIGHTS, tensors)
    with loaded_from(stand, directory) as model:
        logits: np.ndarray = stand.read_tensor(stand.engine.call("model.logits", Logits(model.handle, [*_PROBE])))
    if logits.ndim != 2 or not logits.size or len(logits) != len(_PROBE):
        raise AnswerFellShort(f"a row of logits for each of {len(_PROBE)} tokens")
    return logits
