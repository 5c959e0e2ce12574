"""The same weights in another file format: the file handed to the engine is ours, alone or beside other weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checks.support.checkpoints import copy_of, tensors_of
from checks.support.parity import cases_of_peer
from checks.support.quality import (
    ask,
    between,
    cheapest,
    golden_cases,
    loaded_from,
    loaded_model,
    logits_at,
    observe_ids,
)
from checks.support.tensors import write_safetensors
from checks.support.weights import WEIGHTS, negated
from conformance.corpus.apr_writing import APR_NAME
from conformance.corpus.checkpoint import CheckpointInvalid
from conformance.corpus.gguf_writing import GGUF_NAME
from conformance.corpus.goldens import GoldenCase
from conformance.corpus.variants import VARIANTS, as_gguf, derive
from conformance.protocol.messages import Generation, ModelLoaded
from conformance.trial.stand import NotTried, Stand

_CASES_IN_REHEARSAL = 6
_OTHER_ALIGNMENT = 256
_CHANGED = "model.layers.0.mlp.down_proj.weight"


class Format(NamedTuple):
    """A format by its name in manifests, our variant in it, and the file that the variant makes."""

    name: str
    variant: str
    file: str

    def write(self, source: Path, directory: Path) -> Path:
        """The checkpoint in `source` as a file of this format in `directory`."""
        directory.mkdir(exist_ok=True)
        try:
            VARIANTS[self.variant](source, directory)
        except CheckpointInvalid as invalid:
            raise NotTried(f"{self.name} cannot be written from this checkpoint: {invalid.reason}") from invalid
        return directory / self.file


GGUF = Format("gguf", "gguf-f32", GGUF_NAME)
APR = Format("apr", "apr", APR_NAME)


def compare_with_safetensors(stand: Stand, form: Format) -> None:
    """Observe that a file of another format gives what SafeTensors gives, and that its own weights are the ones used.

    Raises:
        NotTried: the manifest does not claim the format, or the checkpoint cannot be written in it.
    """
    if form.name not in stand.manifest.manifest.engine.formats:
        raise NotTried(f"the manifest's engine.formats do not claim {form.name}")
    cases = golden_cases(stand)
    if not stand.gpu:
        cases = cheapest(cases)[:_CASES_IN_REHEARSAL]
    file = form.write(stand.model_directory, stand.directory / "alone")
    with loaded_model(stand) as model:
        told = {case.name: ask(stand, model, case) for case in cases}
        logits = {case.name: logits_at(stand, model, case) for case in cases}
        if form is GGUF:
            _observe_peer(stand, model, cases, told)
    with loaded_from(stand, file) as model:
        for case in cases:
            answer = ask(stand, model, case)
            observe_ids(stand, model, case, answer)
            expected = list(told[case.name].ids)
            stand.equal(f"same_ids/{case.name}", expected=expected, observed=list(answer.ids), hardening=True)
            here = logits_at(stand, model, case)
            stand.observe(between(f"logits/{case.name}", logits[case.name], here))
            bits = _sha256(logits[case.name])
            stand.equal(f"logits_bits/{case.name}", expected=bits, observed=_sha256(here), hardening=True)
    _observe_whose_weights(stand, form, cases[0], logits[cases[0].name])
    _observe_other_writings(stand, form, cases[0])


def _observe_peer(stand: Stand, model: ModelLoaded, cases: Sequence[GoldenCase], told: dict[str, Generation]) -> None:
    """What the engine decided from SafeTensors against another engine's decisions from GGUF.

    Without that engine this is UNTESTED on a GPU, and nothing in a rehearsal.
    """
    try:
        alike = cases_of_peer(stand, cases)
    except NotTried as lack:
        if stand.gpu:
            stand.missing("peer_ids", lack.reason)
        return
    for case in alike:
        observe_ids(stand, model, case, told[case.name], name="peer_ids")


def _observe_whose_weights(stand: Stand, form: Format, case: GoldenCase, plain: np.ndarray) -> None:
    """Two directories that hold both formats, with one tensor changed in one of them."""
    changed, untouched = copy_of(stand, "changed"), copy_of(stand, "untouched")
    _change(changed / WEIGHTS)
    own = form.write(changed, stand.directory / "made").replace(untouched / form.file)
    with loaded_from(stand, own) as model:
        difference = float(np.abs(logits_at(stand, model, case) - plain).max())
    stand.measured("changed_weight", difference, "logits", note=_CHANGED)
    other = form.write(stand.model_directory, changed)
    with loaded_from(stand, other) as model:
        stand.observe(between("other_weights_beside", plain, logits_at(stand, model, case)))


def _observe_other_writings(stand: Stand, form: Format, case: GoldenCase) -> None:
    """Observe `other_writings/<dtype>`: halves, with a head of their own, and in GGUF aligned as the file says.

    The limits are wide: an engine may compute in the halves that it finds. A half read as the other one, a tensor that
    begins elsewhere, or the embedding in the head's place is further off by far.
    """
    headed = copy_of(stand, "headed", _with_head(stand.model_directory))
    _negate(headed / WEIGHTS, "lm_head.weight")
    for dtype in ("F16", "BF16"):
        stored, made = stand.directory / f"stored-{dtype}", stand.directory / f"made-{dtype}"
        for directory in (stored, made):
            directory.mkdir()
        VARIANTS[dtype.lower()](headed, stored)
        with loaded_from(stand, stored) as model:
            plain = logits_at(stand, model, case)
        if form is GGUF:
            as_gguf(stored, made, dtype, _OTHER_ALIGNMENT)
        with loaded_from(stand, made / form.file if form is GGUF else form.write(stored, made)) as model:
            stand.observe(between(f"other_writings/{dtype}", plain, logits_at(stand, model, case)))


def _with_head(source: Path) -> Path:
    """The checkpoint with a head of its own."""
    try:
        return derive(source, "untied")
    except CheckpointInvalid:
        return source


def _negate(file: Path, name: str) -> None:
    tensors = tensors_of(file)
    dtype, shape, payload = tensors[name]
    tensors[name] = (dtype, shape, negated(dtype, payload))
    write_safetensors(file, tensors)


def _change(file: Path) -> None:
    if not file.is_file():
        raise NotTried("the checkpoint is sharded; changed copies are made of single files")
    _negate(file, _CHANGED)


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()
