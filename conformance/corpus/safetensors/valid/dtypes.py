"""Valid files of every dtype and every value: bytes are handed on unchanged."""

from __future__ import annotations

import struct
from collections.abc import Callable

from conformance.corpus.safetensors.builder import DTYPE_BITS, Layout, Tensor, byte_count, document
from conformance.corpus.safetensors.classes import WEIGHT_DTYPES, Case, Family, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule
from conformance.corpus.safetensors.valid.containers import shuffled

FAMILY = Family("dtypes", row="F-PARSE-040")
VALUES = Family("values", row="F-DTYPE-054")

_SPECIAL_BITS = {
    "F32": (0x7FC00000, 0xFFC00001, 0x7F800001, 0x7FBFFFFF, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x807FFFFF),
    "F16": (0x7E00, 0xFE01, 0x7C01, 0x7DFF, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x83FF),
    "BF16": (0x7FC0, 0xFFC1, 0x7F81, 0x7FBF, 0x7F80, 0xFF80, 0x8000, 0x0001, 0x807F),
}


def _beside_base(source: Source, tensors: tuple[Tensor, ...]) -> Case:
    base = plain(source)
    layout = Layout((*base.layout.tensors, *tensors))
    return base.odd(document(layout), layout.contents())


def _of(dtype: str) -> Callable[[Source], Case]:
    """A builder of files with a tensor of one dtype."""

    def build(source: Source) -> Case:
        step = {4: 2, 6: 4}.get(DTYPE_BITS[dtype], 1)
        shape = (source.integer(1, 4), step * source.integer(1, 4))
        payload = filler(source.integer(0, 65_535), byte_count(dtype, shape))
        if dtype == "BOOL":
            payload = bytes(byte & 1 for byte in payload)
        return _beside_base(source, (Tensor("t", dtype, shape, payload),))

    build.__name__ = dtype.lower()
    build.__doc__ = f"A tensor of dtype {dtype} beside others."
    return build


for _dtype in DTYPE_BITS:
    FAMILY.accepts(Rule.DTYPE)(_of(_dtype))


@FAMILY.accepts(Rule.ALIGNMENT, row="F-DTYPE-051")
def mixed(source: Source) -> Case:
    """Weights of three dtypes in any order, with odd sizes that misalign what follows."""
    base = plain(source)
    tag = source.integer(0, 65_535)
    shapes = [(2 * source.integer(0, 3) + 1,) for _ in WEIGHT_DTYPES]
    tensors = tuple(
        Tensor(f"mixed.{dtype}", dtype, shape, filler(tag + at, byte_count(dtype, shape)))
        for at, (dtype, shape) in enumerate(zip(WEIGHT_DTYPES, shapes, strict=True))
    )
    layout = Layout(tensors, payload_order=shuffled(source, len(tensors)))
    return base.odd(document(layout), layout.contents())


@FAMILY.accepts(Rule.DTYPE)
def all_at_once(source: Source) -> Case:
    """All dtypes of the format in one file, in any order of bytes."""
    base = plain(source)
    tag = source.integer(0, 65_535)
    tensors = tuple(
        Tensor(f"t.{dtype}", dtype, (4,), bytes(byte & 1 for byte in filler(tag + at, bits // 2)))
        for at, (dtype, bits) in enumerate(DTYPE_BITS.items())
    )
    layout = Layout(tensors, payload_order=shuffled(source, len(tensors)))
    return base.odd(document(layout), layout.contents())


@VALUES.accepts(Rule.VALUES)
def special(source: Source) -> Case:
    """Quiet and signalling NaNs with payloads, infinities, negative zero, subnormals."""
    dtype = source.pick(WEIGHT_DTYPES)
    pattern = "<I" if dtype == "F32" else "<H"
    bits = [source.pick(_SPECIAL_BITS[dtype]) for _ in range(source.integer(1, 12))]
    payload = b"".join(struct.pack(pattern, value) for value in bits)
    return _beside_base(source, (Tensor("special", dtype, (len(bits),), payload),))


@VALUES.accepts(Rule.VALUES)
def every_half(source: Source) -> Case:
    """All 65,536 patterns of F16 or BF16, starting anywhere."""
    start = source.integer(0, 65_535)
    patterns = struct.pack("<65536H", *range(65_536))
    payload = patterns[2 * start :] + patterns[: 2 * start]
    return _beside_base(source, (Tensor("all", source.pick(["F16", "BF16"]), (256, 256), payload),))


@VALUES.accepts(Rule.VALUES, row="F-PARSE-040")
def every_byte(source: Source) -> Case:
    """All 256 patterns of an eight-bit dtype, starting anywhere."""
    start = source.integer(0, 255)
    names = [name for name in DTYPE_BITS if name in ("U8", "I8") or name.startswith("F8")]
    payload = bytes((start + at) % 256 for at in range(256))
    return _beside_base(source, (Tensor("all", source.pick(names), (16, 16), payload),))


@VALUES.accepts(Rule.VALUES, row="F-PARSE-036")
def looks_like_header(source: Source) -> Case:
    """The bytes of a tensor are a whole SafeTensors file, spaces, or zeros."""
    base = plain(source)
    payload = source.pick([base.data, b" " * 64, b"\0" * 64, b"{}" * 32, b"\xff" * 64])
    return _beside_base(source, (Tensor("nested", "U8", (len(payload),), payload),))
