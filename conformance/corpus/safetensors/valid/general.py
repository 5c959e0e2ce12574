"""Valid files at large: everything that a layout can say, chosen at once."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import DTYPE_BITS, Layout, Style, Tensor, byte_count, document
from conformance.corpus.safetensors.classes import WEIGHT_DTYPES, Case, Family, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule
from conformance.corpus.safetensors.valid.containers import shuffled

FAMILY = Family("general", row="F-PARSE-036")
_ALPHABET = ("w", ".", "0", "_", "é", "重", " ", '"', "\\", "/", "🧮", "\n")
_WHOLE_BYTES = tuple(name for name, bits in DTYPE_BITS.items() if bits % 8 == 0)


def _text(source: Source, most: int) -> str:
    return "".join(source.pick(_ALPHABET) for _ in range(source.integer(0, most)))


def _anything(source: Source, dtypes: tuple[str, ...]) -> Case:
    count = source.integer(0, 5)
    tag = source.integer(0, 65_535)
    tensors = tuple(_tensor(source, at, tag, dtypes) for at in range(count))
    metadata = tuple((f"{_text(source, 4)}{i}", _text(source, 6)) for i in range(source.integer(0, 2))) or None
    layout = Layout(tensors, shuffled(source, count), metadata, source.integer(0, count))
    gap = source.pick(["", " ", "\n", "\t"])
    parts = replace(
        document(layout),
        style=Style(f",{gap}", f":{gap}", source.pick(["", gap])),
        padding=b" " * source.integer(0, 20),
        multiple=source.pick([8, 0]),
    )
    return plain(source).odd(parts, layout.contents())


def _tensor(source: Source, at: int, tag: int, dtypes: tuple[str, ...]) -> Tensor:
    dtype = source.pick(dtypes)
    shape = tuple(source.integer(0, 4) for _ in range(source.integer(0, 4)))
    payload = filler(tag + at, byte_count(dtype, shape))
    return Tensor(f"{_text(source, 8)}{at}", dtype, shape, payload)


@FAMILY.accepts(Rule.ORDER)
def weights(source: Source) -> Case:
    """Any valid file of F32, F16 and BF16."""
    return _anything(source, WEIGHT_DTYPES)


@FAMILY.accepts(Rule.ORDER)
def anything(source: Source) -> Case:
    """Any valid file of dtypes that fill whole bytes."""
    return _anything(source, _WHOLE_BYTES)
