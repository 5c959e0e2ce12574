"""Parts of a trial: which rows belong to shard `i` of `n`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from conformance.reported import Reported

_WRITTEN = re.compile(r"([1-9]\d{0,3})/([1-9]\d{0,3})")


class NotAShard(Reported):
    """A shard that is not written `i/n` with 1 <= i <= n, or has no rows."""

    def __init__(self, text: str, cause: str = "write i/n with 1 <= i <= n, such as 2/4") -> None:
        self.text = text
        super().__init__(f"--shard {text!r}: {cause}")


class Part(msgspec.Struct, frozen=True):
    """Number `index` (from 1) of `of` parts."""

    index: int
    of: int

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def rows(self, selected: Sequence[str]) -> list[str]:
        """Every `of`-th row of the selection: neighbours, which take alike long, go to different parts.

        Raises:
            NotAShard: there are more parts than rows; an empty one must not look like a survived one.
        """
        mine = list(selected[self.index - 1 :: self.of])
        if not mine:
            raise NotAShard(str(self), f"only {len(selected)} rows are selected")
        return mine


def parse_part(text: str) -> Part:
    """Read `2/4`.

    Raises:
        NotAShard: it is not a part of anything.
    """
    match = _WRITTEN.fullmatch(text)
    if match is None or int(match[1]) > int(match[2]):
        raise NotAShard(text)
    return Part(int(match[1]), int(match[2]))
