"""What several faults of the model share: changed weights, and a model seen with another configuration."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs


def change_weights(plant, change):
    """Let the forward pass see `change(weights, config)` instead of the weights that were loaded."""
    from reference_engine.model import SafeTensorsCudaModel

    last = []

    def changed(original, self):
        weights = original(self)
        if not last or last[0] is not weights:
            last[:] = [weights, change(weights, self.config)]
        return last[1]

    plant.replace(SafeTensorsCudaModel, "weights", changed)


def change_layers(plant, change):
    """The same for each layer on its own."""
    change_weights(
        plant,
        lambda weights, config: replace(
            weights, layers=tuple(change(layer, config, number) for number, layer in enumerate(weights.layers))
        ),
    )


def change_torch_step(plant, changed):
    """Decode by `changed(torch's step, model, state, length)`, on a GPU too, where fused kernels would do it."""
    from reference_engine import decode, warmup
    from reference_engine.kernels.choosing import Choice

    plant.replace(decode, "torch_step", changed)
    plant.replace(warmup, "fused_step", lambda _original, _model: Choice(None, "torch's step is what is changed"))


class Reconfigured:
    """A model whose configuration reads differently while it generates."""

    def __init__(self, model, **fields):
        self._model = model
        self.config = structs.replace(model.config, **fields)

    def __getattr__(self, name):
        return getattr(self._model, name)
