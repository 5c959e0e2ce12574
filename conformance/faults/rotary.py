"""Positions that are nearly right: theta, style, sign, off by one, stuck."""

from __future__ import annotations

from msgspec import structs

from conformance.faults.layers import change_torch_step
from conformance.faults.planting import Plant, fault

_BLAST = ("qual", "load", "build", "int", "perf", "err")
_LONG = {"F-QUAL-070": "logits"}
_IDS = {"F-QUAL-066": "ids"}


def _frequencies(plant, change):
    from reference_engine import model

    plant.replace(model, "inverse_frequencies", change)


@fault(expects={"F-LOAD-063": "theta_is_used", **_LONG}, blast=_BLAST, seen_in="realizar d173967d, koboldcpp#426")
def theta_10000(plant: Plant) -> None:
    """Rotary theta is 10000 whatever the configuration says."""
    _frequencies(plant, lambda original, config: original(structs.replace(config, rope_theta=10000.0)))


@fault(expects=_LONG, blast=_BLAST, seen_in="realizar 2f5b5699")
def rotation_absent(plant: Plant) -> None:
    """Queries and keys are not rotated at all."""
    from reference_engine import model

    plant.replace(model, "_rotate", lambda rotate, x, cos, sin: None)


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 0a339059, 51846d14, TinyLlama#24")
def rotation_by_pairs(plant: Plant) -> None:
    """Neighbouring elements are rotated together instead of the two halves."""
    from reference_engine import model

    def by_pairs(rotate, x, cos, sin):
        half = x.shape[-1] // 2
        mixed = x.unflatten(-1, (half, 2)).transpose(-1, -2).reshape(x.shape).clone()
        rotate(mixed, cos, sin)
        x.copy_(mixed.unflatten(-1, (2, half)).transpose(-1, -2).reshape(x.shape))

    plant.replace(model, "_rotate", by_pairs)


@fault(expects=_IDS, blast=_BLAST)
def rotation_backwards(plant: Plant) -> None:
    """The sine has the other sign."""
    from reference_engine.model import KvCache

    def turned(build, self, *arguments):
        build(self, *arguments)
        self.sin = -self.sin

    plant.replace(KvCache, "__init__", turned)


@fault(expects=_IDS, blast=_BLAST)
def keys_not_rotated(plant: Plant) -> None:
    """Queries are rotated and keys are not."""
    from reference_engine import model

    groups = []

    def remembered(attention, self, x, layer, pairs, *rest):
        groups[:] = [pairs.shape[1]]
        return attention(self, x, layer, pairs, *rest)

    plant.replace(model.SafeTensorsCudaModel, "_attention", remembered)
    plant.replace(model, "_rotate", lambda rotate, x, cos, sin: rotate(x[:, : -groups[0]], cos, sin))


@fault(expects=_LONG, blast=_BLAST)
def angles_in_bfloat16(plant: Plant) -> None:
    """Angles are computed in bfloat16, which counts in eights beyond position 1024."""
    from reference_engine.model import KvCache

    def coarse(build, self, config, device, dtype, capacity):
        import torch

        from reference_engine.model import inverse_frequencies

        build(self, config, device, dtype, capacity)
        positions = torch.arange(capacity, dtype=torch.float32).bfloat16().float()
        angles = torch.outer(positions, inverse_frequencies(config))
        self.cos = torch.cat((angles.cos(), angles.cos()), dim=-1).to(device.torch, dtype)
        self.sin = torch.cat((-angles.sin(), angles.sin()), dim=-1).to(device.torch, dtype)

    plant.replace(KvCache, "__init__", coarse)


@fault(expects=_IDS, blast=_BLAST)
def positions_stretched(plant: Plant) -> None:
    """Positions are divided by four: a context extension that nobody configured."""
    _frequencies(plant, lambda original, config: original(config) / 4)


@fault(expects=_IDS, blast=_BLAST)
def frequencies_of_the_hidden_size(plant: Plant) -> None:
    """Frequencies are spread over the hidden size instead of the head's."""
    _frequencies(plant, lambda original, config: original(config) ** (config.head_dim / config.hidden_size))


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 70d6ac2b")
def decoding_position_off_by_one(plant: Plant) -> None:
    """While decoding, keys are written one position too late."""

    def late(step, model, state, length):
        state.position.add_(1)
        logits = step(model, state, length)
        state.position.sub_(1)
        return logits

    change_torch_step(plant, late)


@fault(expects=_IDS, blast=_BLAST, seen_in="realizar 70d6ac2b (all keys at one position)")
def decoding_position_stuck(plant: Plant) -> None:
    """While decoding, the rotary position stays where the prompt began, as in a graph that captured it."""

    def stuck(step, model, state, length):
        state.cache.cos.index_copy_(0, state.position, state.cache.cos[:1].clone())
        state.cache.sin.index_copy_(0, state.position, state.cache.sin[:1].clone())
        return step(model, state, length)

    change_torch_step(plant, stuck)
