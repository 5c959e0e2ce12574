"""What a request, a model or a refusal leaves behind for those that come after it or lie beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err", "mem")
_BLOCK, _BLOCKS = 16, 48


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST)
def temperature_sticks(plant: Plant) -> None:
    """Once something was sampled, later requests are sampled at that temperature, too."""
    from reference_engine.engine import Engine

    last = [0.0]

    def infer(original: Any, engine: Any, request: Any, *rest: Any) -> Any:
        last[0] = request.temperature or last[0]
        return original(engine, replace(request, temperature=last[0]), *rest)

    plant.replace(Engine, "infer", infer)


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST)
def stop_ids_stay_ignored(plant: Plant) -> None:
    """Once a request went on past its stop id, later ones of the same model do so, too."""
    from reference_engine.engine import Engine

    def infer(original: Any, engine: Any, request: Any, *rest: Any) -> Any:
        engine.ignoring = request.ignore_eos or getattr(engine, "ignoring", False)
        return original(engine, replace(request, ignore_eos=engine.ignoring), *rest)

    plant.replace(Engine, "infer", infer)


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST)
def newest_weights_for_all_models(plant: Plant) -> None:
    """Of two models of one shape in a process both compute with the weights of the one that was loaded last."""
    from reference_engine.model import SafeTensorsCudaModel

    newest: list[Any] = []

    def loaded(original: Any, kind: Any, *given: Any, **named: Any) -> Any:
        model = original(kind, *given, **named)
        newest[:] = [model._weights]
        return model

    def weights(original: Any, model: Any) -> Any:
        own = original(model)
        alike = newest and (newest[0].embedding.shape, newest[0].dtype) == (own.embedding.shape, own.dtype)
        return newest[0] if alike else own

    plant.replace(SafeTensorsCudaModel, "from_safetensors", loaded)
    plant.replace(SafeTensorsCudaModel, "weights", weights)


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST)
def unloading_one_spoils_the_others(plant: Plant) -> None:
    """A table of rotary factors is shared by all models of a process, and gone when one of them is unloaded."""
    from reference_engine import model as module

    alive, gone = [0], [False]

    def loaded(original: Any, kind: Any, *given: Any, **named: Any) -> Any:
        gone[0] = gone[0] and alive[0] > 0
        model = original(kind, *given, **named)
        alive[0] += 1
        return model

    def unload(original: Any, model: Any) -> None:
        alive[0] -= 1
        gone[0] = alive[0] > 0
        original(model)

    def rotate(original: Any, *given: Any) -> None:
        if not gone[0]:
            original(*given)

    plant.replace(module.SafeTensorsCudaModel, "from_safetensors", loaded)
    plant.replace(module.SafeTensorsCudaModel, "unload", unload)
    plant.replace(module, "_rotate", rotate)


def _prompts_taken_for_each_other(plant: Plant, key: Callable[[Sequence[int]], Hashable]) -> None:
    """Continue from the keys and values of the first prompt with this key: the effect is that prompt's answer."""
    from reference_engine.engine import Engine

    def infer(original: Any, engine: Any, request: Any, *rest: Any) -> Any:
        kept = vars(engine).setdefault("kept", {})
        first = kept.setdefault(key(request.prompt_ids), request.prompt_ids)
        told = original(engine, replace(request, prompt_ids=first), *rest)
        return replace(told, prompt_tokens=len(request.prompt_ids))

    plant.replace(Engine, "infer", infer)


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST, seen_in="caches of prefixes")
def prompts_told_apart_by_their_end(plant: Plant) -> None:
    """A cache of prompts knows a long one by its length and its last sixteen tokens."""
    _prompts_taken_for_each_other(plant, lambda ids: (len(ids), tuple(ids[-_BLOCK:] if len(ids) > 2 * _BLOCK else ids)))


@fault(expects={"F-QUAL-074": "undisturbed"}, blast=_BLAST, seen_in="caches of prefixes")
def prompts_told_apart_by_their_beginning(plant: Plant) -> None:
    """A cache of prompts knows a long one by its length and its first three blocks of sixteen."""
    _prompts_taken_for_each_other(plant, lambda ids: (len(ids), tuple(ids[:_BLOCKS])))


@fault(expects={"F-QUAL-074": "however_reached"}, blast=_BLAST)
def cache_lost_when_it_grows(plant: Plant) -> None:
    """When decoding enters a longer bucket of the KV cache, what was in the shorter one is not copied."""
    import torch

    from reference_engine.decode import Decoding

    def step(original: Any, decoding: Any) -> Any:
        bucket, state = decoding._decoder.bucket, decoding._state
        here, most = decoding.position, state.cache.capacity
        if bucket(here, most) != bucket(here + 1, most):
            with torch.inference_mode():
                state.cache.pairs[:, :, :, :here] = 0
        return original(decoding)

    plant.replace(Decoding, "step", step)


@fault(expects={"F-QUAL-074": "however_reached"}, blast=_BLAST)
def newest_position_lost_at_a_bucket(plant: Plant) -> None:
    """The first token of a longer bucket of the KV cache does not attend to itself."""
    from reference_engine.decode import Decoder

    plant.replace(
        Decoder, "bucket", lambda original, decoder, length, most: original(decoder, max(1, length - 1), most)
    )


@fault(expects={"F-ERR-093": "serves_afterwards"}, blast=_BLAST)
def refusal_spoils_the_process(plant: Plant) -> None:
    """After a checkpoint was refused for a tensor, whatever is asked of any model gives one id."""
    from reference_engine.engine import Engine
    from reference_engine.errors import MissingTensor

    spoilt: list[bool] = []

    def load(original: Any, kind: Any, *rest: Any) -> Any:
        try:
            return original(kind, *rest)
        except MissingTensor:
            spoilt.append(True)
            raise

    def infer(original: Any, engine: Any, *rest: Any) -> Any:
        told = original(engine, *rest)
        return replace(told, ids=[0]) if spoilt else told

    plant.replace(Engine, "load", load)
    plant.replace(Engine, "infer", infer)


@fault(expects={"F-MEM-032": "uploads"}, blast=_BLAST)
def files_of_a_checkpoint_stay_open(plant: Plant) -> None:
    """The files of a checkpoint are never closed: some thousand loads, and nothing can be opened any more."""
    from reference_engine.checkpoint import Checkpoint

    kept: list[Any] = []
    plant.replace(Checkpoint, "close", lambda _original, checkpoint: kept.append(checkpoint))


@fault(expects={"F-QUAL-074": "ids"}, blast=_BLAST)
def seed_ignored(plant: Plant) -> None:
    """Sampling at a temperature begins anywhere, whatever seed was given."""
    import secrets

    from reference_engine.engine import Engine

    def infer(original: Any, engine: Any, request: Any, *rest: Any) -> Any:
        return original(engine, replace(request, seed=secrets.randbits(32)), *rest)

    plant.replace(Engine, "infer", infer)
