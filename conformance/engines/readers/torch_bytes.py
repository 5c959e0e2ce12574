"""Bytes of torch tensors, whatever their dtype and shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.engines.readers.open_file import spelled
from conformance.protocol.messages import TensorEntry

if TYPE_CHECKING:
    import torch


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The elements of a host tensor in C order, little-endian."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1)
    payload: bytes = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return payload


def described(name: str, tensor: torch.Tensor) -> TensorEntry:
    """The entry of a tensor in the format's words; torch counts pairs of F4 as one element."""
    shape = list(tensor.shape)
    if str(tensor.dtype) == "torch.float4_e2m1fn_x2":
        return TensorEntry(name, "F4", [*shape[:-1], 2 * shape[-1]] if shape else shape)
    return TensorEntry(name, spelled(tensor.dtype), shape)
