"""What may come between two askings of the same prompt, and how else its answer can be reached; nothing may tell.

The model is the one with random weights: its choices hang on every token before them, where a trained model would
answer alike whatever was mixed up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from checks.support.checkpoints import copy_of, tensors_of, with_eos
from checks.support.quality import loaded_from
from checks.support.tensors import write_safetensors
from checks.support.weights import WEIGHTS, negated
from conformance.corpus.models import resolve_model
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ErrorKind, Generate, Logits, ModelLoaded
from conformance.trial.stand import AnswerFellShort, Stand

_EDGES = (16, 64, 256, 512, 1024)
_BEFORE, _STEPS = 8, 16
_PROMPT, _ANSWER, _STOP = 96, 12, 5
_ORDINARY_IDS = range(3, 400)
_HOT = (2.0, 100.0)
_POSITIONS = 128
_CHANGED = "model.layers.0.mlp.down_proj.weight"


def touchy_checkpoint(stand: Stand) -> Path:
    """The checkpoint with random weights, or the one on trial where the engine runs no such model."""
    directory = resolve_model("random").directory
    try:
        with loaded_from(stand, directory):
            return directory
    except EngineRefused:
        return stand.model_directory


def observe_however_reached(stand: Stand, source: Path) -> None:
    """Observe `however_reached/<n>`: how far ids decoded around position n fall short of the best ones, in logits.

    The best ones are those of the same tokens as one prompt. Memory of keys and values is cut into blocks and buckets,
    most of them powers of two: at the edge of one, a step that looks one position short is right everywhere else. Both
    sides are the engine's; that it computes the right thing is another row's matter, and so this is hardening.
    """
    with loaded_from(stand, source) as model:
        for edge in _EDGES:
            prompt = stand.random.choices(_ORDINARY_IDS, k=edge - _BEFORE)
            if edge + _STEPS > model.config.max_positions:
                continue
            request = Generate(model.handle, _STEPS, prompt_ids=prompt, ignore_eos=True)
            decoded = list(stand.engine.call("generate", request).ids)
            if len(decoded) != _STEPS:
                raise AnswerFellShort(f"{_STEPS} ids where no stop id may end it")
            again = stand.engine.call("model.logits", Logits(model.handle, [*prompt, *decoded[:-1]], last=_STEPS))
            rows = stand.read_tensor(again)
            short = rows.max(axis=1) - rows[np.arange(_STEPS), decoded]
            stand.measured(f"however_reached/{edge}", float(short.max()), "logits", hardening=True)


def observe_undisturbed(stand: Stand, source: Path) -> None:
    """Observe `undisturbed/<by what>`: the ids of a model that was asked nothing else, after all kinds of other things.

    What an engine refuses of these is let be: whether it takes such a request is no matter of this row.
    """
    prompt = stand.random.choices(_ORDINARY_IDS, k=_PROMPT)
    with loaded_from(stand, source) as model:
        free = Generate(model.handle, _ANSWER, prompt_ids=prompt, ignore_eos=True)
        stop = list(stand.engine.call("generate", free).ids)[_STOP:][:1]
    stopping = with_eos(stand, stop, source)
    with loaded_from(stand, stopping) as model:
        expected = _ids(stand, model, prompt)
    with loaded_from(stand, stopping) as model:
        for name, requests in _disturbing(model, prompt):
            for request in requests:
                with suppress(EngineRefused):
                    stand.engine.call("generate", request)
            stand.equal(f"undisturbed/{name}", expected=expected, observed=_ids(stand, model, prompt))
        _observe_beside_another(stand, model, source, prompt, expected)


def _disturbing(model: ModelLoaded, prompt: list[int]) -> Iterator[tuple[str, list[Generate]]]:
    """Requests by what they are. Near twins come first: a memory that confuses prompts holds on to the first one."""
    handle = model.handle
    yield "near twins", [Generate(handle, 2, prompt_ids=twin) for twin in _twins(prompt)]
    yield "sampling", [Generate(handle, 4, prompt_ids=prompt, temperature=hot, seed=1) for hot in _HOT]
    yield "a request past its stop", [Generate(handle, _ANSWER, prompt_ids=prompt, ignore_eos=True)]
    yield "a refused request", [Generate(handle, 2, prompt_ids=[*prompt, model.config.vocab_size])]


def _twins(prompt: list[int]) -> Iterator[list[int]]:
    """The prompt with another beginning and with another end, of several lengths; cut, and continued."""
    for part in (1, 4, 16, len(prompt) // 2):
        yield [*_others(prompt[:part]), *prompt[part:]]
        yield [*prompt[:-part], *_others(prompt[-part:])]
        yield prompt[:-part]
    yield [*prompt, *prompt[:4]]


def _others(ids: list[int]) -> list[int]:
    return [_ORDINARY_IDS[(token + 7) % len(_ORDINARY_IDS)] for token in ids]


def _observe_beside_another(
    stand: Stand, model: ModelLoaded, source: Path, prompt: list[int], expected: list[int]
) -> None:
    """A second model with other weights is loaded, asked and unloaded while the first one is there."""
    other = copy_of(stand, "other", source)
    if (other / WEIGHTS).is_file():
        tensors = tensors_of(other / WEIGHTS)
        dtype, shape, payload = tensors[_CHANGED]
        tensors[_CHANGED] = (dtype, shape, negated(dtype, payload))
        write_safetensors(other / WEIGHTS, tensors)
    with ExitStack() as beside:
        with suppress(EngineRefused):
            second = beside.enter_context(loaded_from(stand, other))
            stand.engine.call("generate", Generate(second.handle, 2, prompt_ids=prompt))
        stand.equal("undisturbed/another model", expected=expected, observed=_ids(stand, model, prompt))
    stand.equal("undisturbed/another model's end", expected=expected, observed=_ids(stand, model, prompt))


def _ids(stand: Stand, model: ModelLoaded, prompt: list[int]) -> list[int]:
    return list(stand.engine.call("generate", Generate(model.handle, _ANSWER, prompt_ids=prompt)).ids)


def observe_context_end(stand: Stand, source: Path) -> None:
    """Observe `context_end/<where>` on a copy of the model with few positions; hardening.

    A prompt that ends just before the last position is answered as far as there is room, or refused; one that does not
    fit is refused, or read whole. Neither is cut in silence, and none is an internal error.
    """
    short = copy_of(stand, "short-context", source)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": _POSITIONS}))
    with loaded_from(stand, short) as model:
        for where, length in (("at it", _POSITIONS - 4), ("beyond it", _POSITIONS + 1)):
            prompt = stand.random.choices(_ORDINARY_IDS, k=length)
            try:
                request = Generate(model.handle, _ANSWER, prompt_ids=prompt, ignore_eos=True)
                answer = stand.engine.call("generate", request)
            except EngineRefused as refusal:
                fair = refusal.kind is not ErrorKind.INTERNAL
                stand.equal(f"context_end/{where}", expected=True, observed=fair, hardening=True, note=str(refusal))
            else:
                told = [answer.prompt_tokens, 1 <= len(answer.ids) <= _ANSWER]
                stand.equal(f"context_end/{where}", expected=[length, True], observed=told, hardening=True)
