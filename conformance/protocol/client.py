"""A session with the engine on trial: its driver starts on first use, and anew after a failure."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from conformance.protocol.driver import Driver, Exit, Limits
from conformance.protocol.failures import CapabilityNotOffered, DriverFailure, DriverNotStarted, EngineRefused
from conformance.protocol.messages import METHODS, PROTOCOL_VERSION, EngineInfo, Initialize, Message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["Driver", "Engine", "Exit", "Launch", "Limits"]


@dataclass(frozen=True)
class Launch:
    """How to start a driver and open a session; `env` is its whole environment, nothing is inherited."""

    command: list[str]
    env: dict[str, str]
    cwd: Path
    run_dir: Path
    seed: int = 0
    threads: int | None = None
    startup_timeout: float = 120.0


class Engine:
    """A session with the engine on trial: starts its driver on first use, and anew after a failure.

    Handles belong to a process: after a restart (`restarts` has grown) those of the last one mean nothing.
    """

    def __init__(self, launch: Launch, limits: Limits | None = None) -> None:
        self.launch = launch
        self.limits = limits or Limits()
        self.starts = 0
        self.served: set[str] = set()
        """Methods that the present process was asked for."""
        self._driver: Driver | None = None
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo:
        """What the engine said of itself; starts it if it does not run."""
        self._running()
        assert self._info is not None
        return self._info

    @property
    def restarts(self) -> int:
        """How often a new process had to take the place of one that was gone."""
        return max(0, self.starts - 1)

    @property
    def pid(self) -> int:
        """Process id of the driver; starts it if it does not run."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """True while a process runs; never starts one."""
        return self._driver is not None and self._driver.alive

    def stderr_tail(self) -> str:
        """The last of what the current driver wrote to its standard error."""
        return "" if self._driver is None else self._driver.stderr_tail()

    def call(self, method: str, params: Message | None = None, *, timeout: float | None = None) -> Any:
        """Ask a method of the protocol; the answer is of the method's result type.

        Raises:
            CapabilityNotOffered: the engine does not claim what the method needs; nothing was sent.
            EngineRefused: the engine answered with an error.
            DriverFailure: one of its subclasses; the next call gets a new process.
        """
        driver = self._running()
        capability = METHODS[method].capability
        if capability is not None and capability not in self.info.capabilities:
            raise CapabilityNotOffered(method, capability)
        self.served.add(method)
        try:
            return driver.call(method, params, timeout=timeout)
        except (EngineRefused, TypeError, ValueError):
            raise
        except BaseException:
            self._driver = None
            raise

    @contextmanager
    def fresh(self) -> Iterator[Engine]:
        """A separate process of the same engine, closed at the end; the session's own process stays as it is."""
        with Engine(self.launch, self.limits) as engine:
            yield engine

    def restart(self) -> None:
        """End the process that runs, if any, and start a new one."""
        self.close()
        self._running()

    def died_since_last_call(self) -> DriverFailure | None:
        """How a process that answered its last call died since; None while it lives, or if none was started."""
        driver = self._driver
        if driver is None or driver.alive:
            return None
        self._driver = None
        return driver.death()

    def close(self) -> Exit | None:
        """Let the process end by itself, kill it if it does not; the next call starts a new one."""
        driver, self._driver = self._driver, None
        return None if driver is None else driver.close()

    def kill(self) -> None:
        """End the process and all its descendants at once; the next call starts a new one."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            self.close()
        else:
            self.kill()

    def _running(self) -> Driver:
        if self._driver is None:
            self._driver = self._start()
        return self._driver

    def _start(self) -> Driver:
        launch = self.launch
        self.starts += 1
        self.served = set()
        driver = Driver.spawn(
            launch.command, cwd=launch.cwd, env=launch.env, run_dir=launch.run_dir, limits=self.limits
        )
        params = Initialize(str(launch.run_dir), PROTOCOL_VERSION, launch.seed, launch.threads)
        try:
            self._info = driver.call("initialize", params, timeout=launch.startup_timeout)
        except (EngineRefused, DriverFailure) as failure:
            driver.kill()
            raise DriverNotStarted(launch.command, cause=str(failure), stderr_tail=driver.stderr_tail()) from failure
        return driver
