"""What a class of files is: a mechanism, the rule it appeals to, and a builder that makes one example.

Builders take a `Source` of choices, which Hypothesis drives (and shrinks) in a trial and a seeded generator
drives in an export, so that a class has one definition.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from conformance.corpus.safetensors.builder import (
    Contents,
    Document,
    Layout,
    Tensor,
    as_written,
    byte_count,
    document,
)
from conformance.corpus.safetensors.rules import Demand, Rule

T = TypeVar("T")

WEIGHT_DTYPES = ("F32", "F16", "BF16")
_STEMS = ("w", "b", "embed", "norm.weight", "layers.0.q_proj.weight", "lm_head", "gate", "k")


class Source(Protocol):
    """Where a builder's choices come from; the first option and the lowest number are the simplest."""

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        ...

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        ...


class RandomSource:
    """Choices from a seeded generator, for exports."""

    def __init__(self, seed: int | str) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- examples, not secrets

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return self._random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return self._random.choice(options)


def filler(tag: int, size: int) -> bytes:
    """Bytes without structure, the same for the same tag."""
    return random.Random(tag).randbytes(size)  # noqa: S311 -- examples, not secrets


@dataclass(frozen=True, slots=True)
class Case:
    """One example: its bytes, the nearest file that must load, and what a reader may find in either.

    `readings` are the contents that an accepting reader may report: exactly one for a file that must be accepted,
    those that the rule leaves open for `either`, None where acceptance is wrong whatever is reported.
    """

    data: bytes
    control: bytes
    control_contents: Contents
    readings: tuple[Contents, ...] | None = None


@dataclass(frozen=True, slots=True)
class CorpusClass:
    """A class of files with one mechanism.

    `official` says whether the official library agrees with the demand; `note` explains where it does not.
    """

    name: str
    row: str
    demand: Demand
    rule: Rule
    build: Callable[[Source], Case]
    official_accepts: bool
    note: str = ""

    @property
    def family(self) -> str:
        """The part of the name before the dot."""
        return self.name.partition(".")[0]

    @property
    def summary(self) -> str:
        """The first line of the builder's docstring."""
        return (self.build.__doc__ or "").strip().splitlines()[0]


class Family:
    """Collects the classes of one module under a common prefix and a default row of the catalogue."""

    def __init__(self, name: str, row: str) -> None:
        self.name = name
        self.row = row
        self.classes: list[CorpusClass] = []

    def rejects(
        self, rule: Rule, *, row: str = "", official_accepts: bool = False, note: str = ""
    ) -> Callable[[Callable[[Source], Case]], Callable[[Source], Case]]:
        """Register a builder whose files a reader must refuse."""
        return self._register(Demand.REJECT, rule, row, official_accepts, note)

    def leaves_open(
        self, rule: Rule, *, official_accepts: bool, row: str = "", note: str = ""
    ) -> Callable[[Callable[[Source], Case]], Callable[[Source], Case]]:
        """Register a builder whose files a reader may accept or refuse, but not misread."""
        return self._register(Demand.EITHER, rule, row, official_accepts, note)

    def accepts(self, rule: Rule, *, row: str = "") -> Callable[[Callable[[Source], Case]], Callable[[Source], Case]]:
        """Register a builder whose files a reader must accept and read exactly."""
        return self._register(Demand.ACCEPT, rule, row, official_accepts=True, note="")

    def _register(
        self, demand: Demand, rule: Rule, row: str, official_accepts: bool, note: str
    ) -> Callable[[Callable[[Source], Case]], Callable[[Source], Case]]:
        def register(build: Callable[[Source], Case]) -> Callable[[Source], Case]:
            name = f"{self.name}.{build.__name__.strip('_')}"
            found = CorpusClass(name, row or self.row, demand, rule, build, official_accepts, note)
            self.classes.append(found)
            return build

        return register


@dataclass(frozen=True, slots=True)
class Plain:
    """A plain file to start from: what it means, its raw parts and its bytes."""

    layout: Layout
    parts: Document
    data: bytes

    @property
    def contents(self) -> Contents:
        """What a reader finds in the file."""
        return self.layout.contents()

    def broken(self, data: bytes | Document, readings: tuple[Contents, ...] | None = None) -> Case:
        """A case with this file as its control."""
        encoded = data if isinstance(data, bytes) else data.encode()
        return Case(encoded, self.data, self.contents, readings)

    def odd(self, data: bytes | Document, contents: Contents) -> Case:
        """A case that must be accepted and read as `contents`, with this file as its control."""
        return self.broken(data, (contents,))


def plain(
    source: Source, *, least: int = 1, most: int = 3, dtypes: Sequence[str] = WEIGHT_DTYPES, rank: int = 0
) -> Plain:
    """A file as the official writer leaves it: a few weight tensors, aligned, the header padded to eight bytes.

    `rank` fixes the rank of every tensor; 0 lets each choose one or two.
    """
    count = source.integer(least, most)
    shapes = [_shape(source, rank) for _ in range(count)]
    chosen = [source.pick(dtypes) for _ in range(count)]
    stem = source.pick(_STEMS)
    tag = source.integer(0, 65_535)
    tensors = [
        Tensor(f"{stem}.{i}", dtype, shape, filler(tag + i, byte_count(dtype, shape)))
        for i, (dtype, shape) in enumerate(zip(chosen, shapes, strict=True))
    ]
    return plain_from(Layout(as_written(tensors)))


def plain_from(layout: Layout) -> Plain:
    """A layout with its parts and bytes."""
    parts = document(layout)
    return Plain(layout, parts, parts.encode())


def with_metadata(base: Plain, pairs: Sequence[tuple[str, str]]) -> Plain:
    """The same file with metadata at the head of the header."""
    return plain_from(replace(base.layout, metadata=tuple(pairs), metadata_at=0))


def _shape(source: Source, rank: int) -> tuple[int, ...]:
    return tuple(source.integer(2, 5) for _ in range(rank or source.integer(1, 2)))


def sha256(data: bytes) -> str:
    """Hex digest that names a file of the corpus."""
    return hashlib.sha256(data).hexdigest()


def changed_ranges(control: bytes, data: bytes) -> tuple[tuple[int, int], ...]:
    """Byte ranges [begin, end) of `data` that differ from the control, one in each part of the file.

    Parts are the length prefix, the header as the control has it, and the rest; a range may be empty, where bytes
    were only taken away.
    """
    split = 8 + int.from_bytes(control[:8], "little")
    grown = len(data) - len(control)
    same_length = data[:8] == control[:8]
    moved = split if same_length else max(8, split + grown)
    parts = (
        (control[:8], data[:8], 0),
        (control[8:split], data[8:moved], 8),
        (control[split:], data[moved:], moved),
    )
    found = [(at + begin, at + end) for old, new, at in parts if old != new for begin, end in [_span(old, new)]]
    return tuple(found)


def _span(old: bytes, new: bytes) -> tuple[int, int]:
    """The part of `new` between the longest common beginning and the longest common end."""
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    rest = shorter - head
    tail = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return head, len(new) - tail
