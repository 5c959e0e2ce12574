"""Fixed launch configurations: how many rows a program takes and how it walks over them, by kernel and dtype.

Found by measurement on an H100 (`docs/notes/decode-kernels.md`); nothing is tuned at run time. Results do not
depend on the device: for one model they are the same constants everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference_engine.config import ModelConfig


@dataclass(frozen=True)
class Tile:
    """How a product is cut.

    Attributes:
        rows: Rows of a program (of gate and of up each).
        columns: Columns at a time, a power of two.
        unroll: Times that `columns` are asked for before the first is used.
        lines: Cache lines of each row fetched while the kernel before still runs.
        warps: Warps of a program.
        programs: Programs at most (`head`); 0 for as many as there are blocks of rows.
    """

    rows: int
    columns: int
    unroll: int
    lines: int
    warps: int
    programs: int = 0

    def within(self, width: int) -> Tile:
        """The same for rows of `width` columns: no wider than they are."""
        columns = min(self.columns, max(32, power_of_two(width)))
        return Tile(self.rows, columns, self.unroll, self.lines, self.warps, self.programs)


@dataclass(frozen=True)
class Split:
    """How attention is cut.

    Attributes:
        positions: Positions of a chunk, a power of two.
        heads: Heads of a program at most, among those that share a KV head.
        warps: Warps of a program.
        columns: Columns of a head that a program of `combine` adds up.
        at_once: Chunks that are asked for before they are added.
        join: Whether the last program of a head adds its chunks up, instead of `combine`.
    """

    positions: int
    heads: int
    warps: int
    columns: int = 32
    at_once: int = 16
    join: bool = False

    def per_program(self, shared: int) -> int:
        """Heads of a program where `shared` share a KV head: the largest divisor within the limit."""
        return max(count for count in range(1, min(self.heads, shared) + 1) if shared % count == 0)


@dataclass(frozen=True)
class Plan:
    """The configuration of every kernel of a step; `overlap` is programmatic dependent launch."""

    qkv: Tile
    attention: Split
    out: Tile
    gate_up: Tile
    down: Tile
    head: Tile
    overlap: bool


F32 = Plan(
    qkv=Tile(1, 256, 6, 16, 1),
    attention=Split(64, 1, 4, at_once=64),
    out=Tile(1, 512, 1, 16, 2),
    gate_up=Tile(1, 512, 3, 16, 4),
    down=Tile(4, 1024, 4, 16, 8),
    head=Tile(4, 256, 3, 16, 4, 2112),
    overlap=True,
)
HALF = Plan(
    qkv=Tile(2, 512, 3, 8, 2),
    attention=Split(32, 1, 2, at_once=128),
    out=Tile(2, 512, 3, 8, 2),
    gate_up=Tile(1, 512, 3, 8, 1),
    down=Tile(2, 1024, 2, 8, 4),
    head=Tile(8, 256, 3, 8, 2, 2112),
    overlap=True,
)


def plan_of(itemsize: int, *, overlap: bool) -> Plan:
    """The plan for weights of `itemsize` bytes; without `overlap` where the device has no dependent launch."""
    plan = F32 if itemsize == 4 else HALF
    return Plan(plan.qkv, plan.attention, plan.out, plan.gate_up, plan.down, plan.head, plan.overlap and overlap)


def power_of_two(number: int) -> int:
    """The next power of two, at least 1."""
    return 1 << max(0, math.ceil(math.log2(number))) if number > 0 else 1


def unsupported(config: ModelConfig) -> str | None:
    """Why these kernels do not run a model; None if they do."""
    return None if config.is_plain else "it has biases, norms or windows that the fused kernels do not know"
