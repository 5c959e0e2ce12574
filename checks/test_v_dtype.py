"""V. Dtype Handling: bits unchanged, widening exact, and what is no weight refused aloud."""

from __future__ import annotations

from checks.support.loading import (
    Tensors,
    item_count,
    observe_loaded,
    observe_nothing_left,
    observe_product,
    observe_refused_dtype,
    observe_widening,
    sent_and_back,
)
from checks.support.parsing import Hunter
from checks.support.tensors import bits_of, every_half_pattern, special_values
from conformance.corpus.safetensors.builder import DTYPE_BITS
from conformance.corpus.safetensors.classes import WEIGHT_DTYPES
from conformance.trial.stand import Stand

_NANS = ("quiet NaNs", "signalling NaNs", "payload NaNs")


def _of_classes(dtype: str, *classes: str) -> Tensors:
    """One tensor for each pattern class (all when none is named)."""
    values = special_values(dtype)
    chosen = classes or tuple(values)
    return {f"{dtype} {name}": (dtype, [item_count(dtype, values[name])], values[name]) for name in chosen}


def test_f_dtype_046(stand: Stand) -> None:
    noise = {"F32 random bits": ("F32", [50_021], bits_of("F32", 50_021, stand.random))}
    observe_loaded(stand, dict(_of_classes("F32")) | noise)
    observe_product(stand, "F32")


def test_f_dtype_047(stand: Stand) -> None:
    every = {"F16 every pattern": ("F16", [256, 256], every_half_pattern(stand.random))}
    observe_loaded(stand, dict(_of_classes("F16")) | every)
    observe_product(stand, "F16")


def test_f_dtype_048(stand: Stand) -> None:
    every = {"BF16 every pattern": ("BF16", [256, 256], every_half_pattern(stand.random))}
    observe_loaded(stand, dict(_of_classes("BF16")) | every)
    observe_product(stand, "BF16")


def test_f_dtype_049(stand: Stand) -> None:
    observe_refused_dtype(stand, "F64", DTYPE_BITS["F64"])
    observe_nothing_left(stand, "F64", DTYPE_BITS["F64"])


def test_f_dtype_050(stand: Stand) -> None:
    for dtype, bits in DTYPE_BITS.items():
        if dtype not in (*WEIGHT_DTYPES, "F64"):
            observe_refused_dtype(stand, dtype, bits)
    observe_nothing_left(stand, "I32", DTYPE_BITS["I32"])


def test_f_dtype_051(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
    sizes = (1, 3, 5, 7, 1, 255, 2, 33, 9)
    dtypes = [*WEIGHT_DTYPES] * 3
    stand.random.shuffle(dtypes)
    observe_loaded(
        stand,
        {
            f"{at} {dtype}": (dtype, [size], bits_of(dtype, size, stand.random))
            for at, (dtype, size) in enumerate(zip(dtypes, sizes, strict=True))
        },
    )


def test_f_dtype_052(stand: Stand) -> None:
    observe_widening(stand, "F16")


def test_f_dtype_053(stand: Stand) -> None:
    observe_widening(stand, "BF16")


def _observe_preserved(stand: Stand, *classes: str) -> None:
    """Patterns of these classes in all weight dtypes: loaded from a file, and sent pageable and pinned."""
    tensors = {name: tensor for dtype in WEIGHT_DTYPES for name, tensor in _of_classes(dtype, *classes).items()}
    observe_loaded(stand, tensors)
    for name, (dtype, _, payload) in tensors.items():
        for pinned in (False, True):
            how = "pinned" if pinned else "pageable"
            observed = sent_and_back(stand, dtype, payload, pinned=pinned)
            stand.equal(f"transfer/{how}/{name}", expected=None, observed=observed)


def test_f_dtype_054(stand: Stand) -> None:
    Hunter(stand).hunt_row().observe()
    _observe_preserved(stand, *_NANS)


def test_f_dtype_055(stand: Stand) -> None:
    _observe_preserved(stand, "infinities")
