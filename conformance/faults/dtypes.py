"""Bits that change on their way into a storage, dtypes that are mistaken, and refusals that do not happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from conformance.faults.planting import Plant, fault

if TYPE_CHECKING:
    import torch

_STORED = ("dtype", "mem", "load", "qual", "build", "err", "int")


def _loaded(plant: Plant, edit: Callable[[torch.Tensor], object]) -> None:
    """Edit every tensor that the loader of files has filled."""
    from reference_engine import loader

    def edited(original: Any, moves: Any, device: Any) -> None:
        kept = list(moves)
        original(kept, device)
        for _, tensor in kept:
            edit(tensor)

    plant.replace(loader, "transfer", edited)


def _uploaded(plant: Plant, edit: Callable[[torch.Tensor], object]) -> None:
    """Edit every tensor that was sent from host memory."""
    from reference_engine.storage import CudaStorage

    def edited(original: Any, kind: Any, *arguments: Any, **named: Any) -> Any:
        storage = original(kind, *arguments, **named)
        edit(storage.tensor)
        return storage

    plant.replace(CudaStorage, "from_host", edited)


def _widened(plant: Plant, widen: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Widen halves in another way."""
    from reference_engine.storage import CudaStorage

    def converted(_original: Any, storage: Any, _dtype: str) -> Any:
        return type(storage)(storage.device, widen(storage.tensor))

    plant.replace(CudaStorage, "convert", converted)


def _of(name: str, edit: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], None]:
    def only(tensor: torch.Tensor) -> None:
        import torch

        if tensor.dtype == getattr(torch, name):
            edit(tensor)

    return only


@fault(expects={"F-DTYPE-046": "same_bytes", "F-DTYPE-054": "same_bytes"}, blast=_STORED)
def nan_becomes_zero(plant: Plant) -> None:
    """Not-a-number is cleaned away from weights."""
    _loaded(plant, lambda tensor: tensor.nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf")))


@fault(expects={"F-DTYPE-054": "transfer", "F-MEM-025": "same_bytes"}, blast=_STORED)
def nan_becomes_zero_in_transfer(plant: Plant) -> None:
    """Not-a-number is cleaned away from tensors that are sent."""
    _uploaded(plant, lambda tensor: tensor.nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf")))


@fault(expects={"F-DTYPE-055": "same_bytes"}, blast=_STORED, seen_in="vLLM#48231")
def infinity_becomes_the_largest(plant: Plant) -> None:
    """Infinities are clamped to the largest number of their dtype."""
    _loaded(plant, lambda tensor: tensor.nan_to_num_(nan=float("nan")))


@fault(expects={"F-DTYPE-055": "transfer"}, blast=_STORED)
def infinity_becomes_the_largest_in_transfer(plant: Plant) -> None:
    """Infinities are clamped in tensors that are sent."""
    _uploaded(plant, lambda tensor: tensor.nan_to_num_(nan=float("nan")))


@fault(expects={"F-DTYPE-054": "same_bytes"}, blast=_STORED)
def nan_payloads_lost(plant: Plant) -> None:
    """Every not-a-number becomes the one that arithmetic makes."""

    def canonical(tensor: torch.Tensor) -> None:
        tensor[tensor.isnan()] = float("nan")

    _loaded(plant, canonical)


@fault(expects={"F-DTYPE-046": "same_bytes"}, blast=_STORED)
def f32_subnormals_flushed(plant: Plant) -> None:
    """F32 numbers below the smallest normal one become zero, as with flush-to-zero on."""

    def flush(tensor: torch.Tensor) -> None:
        import torch

        tensor[(tensor.abs() < torch.finfo(tensor.dtype).tiny) & (tensor != 0)] = 0.0

    _loaded(plant, _of("float32", flush))


@fault(expects={"F-DTYPE-047": "same_bytes"}, blast=_STORED)
def f16_subnormals_flushed(plant: Plant) -> None:
    """F16 numbers below the smallest normal one become zero."""

    def flush(tensor: torch.Tensor) -> None:
        import torch

        tensor[(tensor.abs() < torch.finfo(tensor.dtype).tiny) & (tensor != 0)] = 0.0

    _loaded(plant, _of("float16", flush))


@fault(expects={"F-DTYPE-046": "same_bytes"}, blast=_STORED)
def minus_zero_becomes_zero(plant: Plant) -> None:
    """The sign of zero is lost."""

    def unsigned(tensor: torch.Tensor) -> None:
        tensor[tensor == 0] = 0.0

    _loaded(plant, unsigned)


@fault(expects={"F-DTYPE-048": "same_bytes"}, blast=_STORED, seen_in="safetensors#448")
def bf16_bytes_swapped(plant: Plant) -> None:
    """BF16 is read with its bytes the other way round."""

    def swap(tensor: torch.Tensor) -> None:
        import torch

        pairs = tensor.reshape(-1).view(torch.uint8).reshape(-1, 2)
        pairs.copy_(pairs.flip(1).clone())

    _loaded(plant, _of("bfloat16", swap))


@fault(expects={"F-DTYPE-048": "same_bytes", "F-DTYPE-051": "same_bytes"}, blast=_STORED, seen_in="raven#81")
def bf16_loads_as_zeros(plant: Plant) -> None:
    """BF16 tensors are allocated and never filled."""
    _loaded(plant, _of("bfloat16", lambda tensor: tensor.zero_()))


@fault(expects={"F-DTYPE-047": "product", "F-DTYPE-052": "wrong"}, blast=_STORED, seen_in="realizar cc793313")
def f16_widened_as_bf16(plant: Plant) -> None:
    """F16 is widened as if it were BF16, which gives plausible numbers."""

    def widen(tensor: torch.Tensor) -> torch.Tensor:
        import torch

        return (tensor.view(torch.bfloat16) if tensor.dtype == torch.float16 else tensor).float()

    _widened(plant, widen)


@fault(expects={"F-DTYPE-048": "product", "F-DTYPE-053": "wrong"}, blast=_STORED, seen_in="realizar c55c7649")
def bf16_widened_as_f16(plant: Plant) -> None:
    """BF16 is widened as if it were F16."""

    def widen(tensor: torch.Tensor) -> torch.Tensor:
        import torch

        return (tensor.view(torch.float16) if tensor.dtype == torch.bfloat16 else tensor).float()

    _widened(plant, widen)


@fault(expects={"F-DTYPE-053": "wrong"}, blast=_STORED, seen_in="vLLM#14126, Qwen3#761")
def bf16_widened_through_f16(plant: Plant) -> None:
    """BF16 goes through F16 on its way to F32 and overflows there."""
    _widened(plant, lambda tensor: tensor.half().float())


@fault(expects={"F-DTYPE-052": "wrong"}, blast=_STORED)
def f16_widened_through_bf16(plant: Plant) -> None:
    """F16 goes through BF16 on its way to F32 and loses three bits."""
    _widened(plant, lambda tensor: tensor.bfloat16().float())


@fault(expects={"F-DTYPE-052": "wrong"}, blast=_STORED)
def widening_flushes_f16_subnormals(plant: Plant) -> None:
    """Subnormal F16 numbers become zero when they are widened."""

    def widen(tensor: torch.Tensor) -> torch.Tensor:
        import torch

        wide = tensor.float()
        return wide.where(tensor.abs() >= torch.finfo(tensor.dtype).tiny, torch.zeros_like(wide))

    _widened(plant, widen)


@fault(expects={"F-DTYPE-053": "wrong"}, blast=_STORED)
def widening_drops_the_sign_of_zero(plant: Plant) -> None:
    """Minus zero is widened to zero."""
    _widened(plant, lambda tensor: tensor.float() + 0.0)


@fault(expects={"F-DTYPE-052": "described", "F-DTYPE-053": "described"}, blast=_STORED)
def widening_forgets_the_shape(plant: Plant) -> None:
    """A widened tensor is flat."""
    _widened(plant, lambda tensor: tensor.float().reshape(-1))


@fault(expects={"F-DTYPE-051": "same_bytes"}, blast=_STORED)
def halves_read_one_item_late(plant: Plant) -> None:
    """Two-byte tensors are read from one item behind their place."""
    half = 2

    def late(tensor: torch.Tensor) -> None:
        if tensor.element_size() == half:
            tensor.copy_(tensor.clone().roll(1))

    _loaded(plant, late)


@fault(expects={"F-DTYPE-051": "all_loaded", "F-DTYPE-046": "all_loaded"}, blast=_STORED)
def last_tensor_left_out(plant: Plant) -> None:
    """The last tensor of a file is not loaded."""
    from reference_engine.loader import SafeTensorsCudaLoader

    def shorter(original: Any, loader: Any, path: Any) -> Any:
        found = original(loader, path)
        if len(found) > 1:
            found.popitem()
        return found

    plant.replace(SafeTensorsCudaLoader, "load", shorter)


def _lenient(plant: Plant, admit: Callable[[str], bool], dtype: str | None) -> None:
    """Load files with dtypes that weights do not have: as `dtype`, or without those tensors."""
    from reference_engine import loader
    from reference_engine.checkpoint import Checkpoint
    from reference_engine.storage import TORCH_DTYPES

    module: Any = loader

    class Lenient(Checkpoint):
        def __enter__(self) -> Any:
            opened = super().__enter__()
            for name, located in list(opened.tensors.items()):
                if located.entry.dtype in TORCH_DTYPES or not admit(located.entry.dtype):
                    continue
                if dtype is None:
                    del opened.tensors[name]
                else:
                    width = TORCH_DTYPES[dtype].itemsize
                    entry = located.entry._replace(dtype=dtype, shape=(located.entry.nbytes // width,))
                    opened.tensors[name] = replace(
                        located, entry=entry._replace(end=entry.begin + entry.nbytes // width * width)
                    )
            return opened

    def loading(original: Any, self: Any, path: Any) -> Any:
        strict, module.Checkpoint = module.Checkpoint, Lenient
        try:
            return original(self, path)
        finally:
            module.Checkpoint = strict

    plant.replace(loader.SafeTensorsCudaLoader, "load", loading)


@fault(expects={"F-DTYPE-049": "explicit"}, blast=("dtype",), seen_in="realizar src/apr/mod.rs")
def f64_read_as_f32(plant: Plant) -> None:
    """F64 is loaded as twice as many F32."""
    _lenient(plant, lambda dtype: dtype == "F64", "F32")


@fault(expects={"F-DTYPE-050": "explicit"}, blast=("dtype",))
def integers_read_as_f32(plant: Plant) -> None:
    """Integers of 32 bits are loaded as F32 of the same bits."""
    _lenient(plant, lambda dtype: dtype in {"I32", "U32"}, "F32")


@fault(expects={"F-DTYPE-050": "explicit"}, blast=("dtype",))
def bytes_read_as_halves(plant: Plant) -> None:
    """Tensors of single bytes are loaded as half as many F16."""
    _lenient(plant, lambda dtype: dtype in {"U8", "I8", "BOOL"}, "F16")


@fault(expects={"F-DTYPE-049": "explicit", "F-DTYPE-050": "explicit"}, blast=("dtype",), seen_in="kekzl/imp#1603")
def foreign_dtypes_skipped(plant: Plant) -> None:
    """A tensor that is no weight is left out without a word."""
    _lenient(plant, lambda _dtype: True, None)


@fault(expects={"F-DTYPE-049": "nothing_left", "F-DTYPE-050": "nothing_left"}, blast=("dtype", "load", "err", "mem"))
def refused_file_stays_in_memory(plant: Plant) -> None:
    """What was loaded of a file before it was refused stays allocated."""
    from reference_engine import errors
    from reference_engine.loader import SafeTensorsCudaLoader
    from reference_engine.storage import CudaStorage

    kept: list[Any] = []

    def leaking(original: Any, loader: Any, path: Any) -> Any:
        try:
            return original(loader, path)
        except errors.UnsupportedDtype:
            kept.append(CudaStorage.from_bytes(bytes(4096), "F32", [1024], loader.device))
            raise

    plant.replace(SafeTensorsCudaLoader, "load", leaking)


@fault(expects={"F-DTYPE-049": "names", "F-DTYPE-050": "names"}, blast=("dtype", "err"))
def unsupported_dtype_names_no_tensor(plant: Plant) -> None:
    """The refusal of a dtype says neither which tensor nor which dtype."""
    from reference_engine.errors import UnsupportedDtype

    plant.replace(UnsupportedDtype, "_message", lambda _original, _error: "unsupported data type")


@fault(expects={"F-DTYPE-049": "kind", "F-DTYPE-050": "kind"}, blast=("dtype", "err", "parse"))
def unsupported_dtype_is_a_broken_file(plant: Plant) -> None:
    """A dtype that is not supported is reported as a file that is broken."""
    from reference_engine import errors, loader
    from reference_engine.storage import TORCH_DTYPES

    def broken(_original: Any, name: str, located: Any) -> None:
        if located.entry.dtype not in TORCH_DTYPES:
            raise errors.InvalidFile(located.file.path, f"{name} has {located.entry.dtype}")

    plant.replace(loader, "require_weight_dtype", broken)
