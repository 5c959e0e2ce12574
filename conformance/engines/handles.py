"""What adapters share: the things held between calls, under numbers never used twice, and two errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

Held = TypeVar("Held")


class UnknownHandle(Exception):
    """Nothing of the wanted kind is held under this handle: it was closed, or never given out."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        super().__init__(f"handle {handle} is closed or was never opened")


class WrongRequest(Exception):
    """A request that makes no sense to an adapter."""


class HandleTable:
    """Numbers for things."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}
        self._last = 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Handles and what they stand for."""
        return iter(list(self._held.items()))

    def hold(self, thing: object) -> int:
        """Keep a thing; the answer is its handle."""
        self._last += 1
        self._held[self._last] = thing
        return self._last

    def get(self, handle: int, *kinds: type[Held]) -> Held:
        """The thing under a handle.

        Raises:
            UnknownHandle: There is none, or it is of none of these kinds.
        """
        thing = self._held.get(handle)
        if not isinstance(thing, kinds):
            raise UnknownHandle(handle)
        return thing

    def take(self, handle: int, *kinds: type[Held]) -> Held:
        """Like `get`, and forget it."""
        thing = self.get(handle, *kinds)
        del self._held[handle]
        return thing
