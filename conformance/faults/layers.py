"""What several faults of the model share: changed weights, and a model seen with another configuration."""

from __future__ import annotations

from dataclasses import replace


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


class Reconfigured:
    """A model whose configuration reads differently while it generates."""

    def __init__(self, model, **fields):
        self._model = model
        self.config = replace(model.config, **fields)

    def __getattr__(self, name):
        return getattr(self._model, name)
