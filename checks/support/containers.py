"""One checkpoint in many containers: whatever holds the tensors, the answers are the same to the last bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from checks.support.quality import loaded_from
from conformance.corpus.models import resolve_model
from conformance.corpus.safetensors.metamorphic import (
    VARIANTS,
    WEIGHTS,
    Checkpoint,
    Variant,
    read_checkpoint,
    write_variant,
)
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import Capability, Generate, Logits
from conformance.trial.stand import Stand

_LARGEST_BYTES = 64 * 2**20
_PROBE = [1, 17, 130, 7, 255, 42, 99, 3]
_TOKENS = 4
_NEEDED = (Capability.MODEL, Capability.GENERATE)
# The names that a container with tensors of its own gives them; a refusal of such a container names one.
_OURS = "unused."


class Answer(NamedTuple):
    """What a loaded checkpoint says: the hash of its logits' bytes, and the ids it goes on with."""

    logits: str
    ids: list[int]


def observe_containers(stand: Stand) -> None:
    """Observe `plain_repeats`, and `container/<name>` for every container that the checkpoint is put into."""
    if absent := [str(needed) for needed in _NEEDED if needed not in stand.engine.info.capabilities]:
        stand.missing("container", f"capability {' and '.join(absent)} is not offered")
        return
    checkpoint = read_checkpoint(_small_checkpoint(stand))
    plain, again = (_answer(stand, checkpoint.directory) for _ in range(2))
    stand.equal("plain_repeats", expected=plain.ids, observed=again.ids)
    # An engine whose logits differ from load to load is held to its ids alone.
    expected = plain if plain.logits == again.logits else plain._replace(logits="")
    for variant in VARIANTS:
        observed = _answer_in(stand, variant, checkpoint)
        if not expected.logits and observed:
            observed = observed._replace(logits="")
        right = list(expected) if observed else None
        seen = list(observed) if observed else None
        stand.equal(f"container/{variant.name}", expected=right, observed=seen, note=variant.summary)


def _small_checkpoint(stand: Stand) -> Path:
    """The checkpoint on trial, or the shipped one where that is sharded or too large to be written so often."""
    file = stand.model_directory / WEIGHTS
    if file.is_file() and file.stat().st_size <= _LARGEST_BYTES:
        return stand.model_directory
    return resolve_model("fixture").directory


def _answer_in(stand: Stand, variant: Variant, checkpoint: Checkpoint) -> Answer | None:
    """The answer out of one container; None where it is refused for a tensor that the model does not have."""
    target = stand.directory / variant.name
    try:
        return _answer(stand, write_variant(variant, checkpoint, target))
    except EngineRefused as refusal:
        if variant.adds_tensors and _OURS in refusal.message:
            return None
        return Answer(f"refused: {refusal}", [])
    finally:
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(target.with_name(f"{target.name}.blobs"), ignore_errors=True)


def _answer(stand: Stand, directory: Path) -> Answer:
    with loaded_from(stand, directory) as model:
        logits = stand.engine.call("model.logits", Logits(model.handle, _PROBE, last=1))
        stand.read_bytes(logits)
        generated = stand.engine.call("generate", Generate(model.handle, _TOKENS, prompt_ids=_PROBE))
        return Answer(logits.sha256, list(generated.ids))
