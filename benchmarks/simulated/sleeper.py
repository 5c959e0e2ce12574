"""An engine that infers nothing: every call of a row takes as long as the argument says, in seconds, and is refused."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from conformance.protocol import messages as m
from conformance.protocol.host import serve

SECONDS = float(sys.argv[1])
DEVICE = m.DeviceInfo(0, "simulated", 80 << 30)


class Refused(Exception):
    """The only error."""


class Sleeper:
    """Opens a device, and sleeps over everything else."""

    def initialize(self, params: m.Initialize) -> m.EngineInfo:
        """Offer whatever a row may ask."""
        del params
        return m.EngineInfo("sleeper", "1", list(m.Capability), language="python")

    def describe_error(self, error: Exception) -> m.ErrorData | None:
        """A refusal on purpose."""
        return m.ErrorData(m.ErrorKind.INVALID_ARGUMENT, "Refused") if isinstance(error, Refused) else None

    def device_open(self, params: m.DeviceOpen) -> m.DeviceOpened:
        """At once."""
        del params
        return m.DeviceOpened(1, DEVICE)

    def device_synchronize(self, params: m.Handle) -> None:
        """At once."""

    def device_close(self, params: m.Handle) -> None:
        """At once."""

    def __getattr__(self, name: str) -> Callable[[object], object]:
        if name not in {row.replace(".", "_") for row in m.METHODS}:
            raise AttributeError(name)
        return self._slept

    def _slept(self, params: object) -> object:
        del params
        time.sleep(SECONDS)
        raise Refused("a sleeper answers nothing")


if __name__ == "__main__":
    serve(Sleeper)
