"""Arithmetic that is nearly right: biases, norms, products, activations, precision."""

from __future__ import annotations

from dataclasses import replace

from conformance.faults.planting import Plant, fault

_ANY_MODEL_ROW = ("qual", "load", "build", "int", "perf", "F-ERR-092")


@fault(
    expects={"F-LOAD-061": "smallest_change", "F-QUAL-066": "ids", "F-QUAL-067": "ids", "F-QUAL-075": "golden"},
    blast=_ANY_MODEL_ROW,
    seen_in="realizar b6090f53, da0a803f",
)
def qkv_bias_dropped(plant: Plant) -> None:
    """The q, k and v biases are loaded and never added."""
    from reference_engine import model

    def without_bias(attention, self, x, layer, pairs, place):
        return attention(self, x, replace(layer, qkv_bias=None), pairs, place)

    plant.replace(model.SafeTensorsCudaModel, "_attention", without_bias)
