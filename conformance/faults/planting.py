"""What a fault is: a function that patches a mechanism of the reference engine, and what must see it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from conformance.manifest import Manifest
from conformance.reported import Reported

AREAS = (
    "numerics", "rotary", "state", "loading", "memory", "transfer", "speed", "crash", "cuda",
    "parsing", "dtypes", "honesty", "errors", "command_line", "build", "formats", "leftovers", "templates",
)  # fmt: skip
WITNESS = "FALSIFY_FAULT_WITNESS"
Replacement = Callable[..., Any]
Machine = Literal["cpu", "gpu"]


class UnknownFault(Reported):
    """No fault of this name is known."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no fault {name!r}; `falsify severity --list` names them")


class FaultTwice(Exception):
    """Two faults of one name; a kill could not be told to either."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"two faults are named {name!r}")


class Plant:
    """What a fault patches with. Every patch leaves a witness when its code runs, for the trial to read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._said = False

    def ran(self) -> None:
        """Note, once in a process, that the fault's own code ran."""
        path = os.environ.get(WITNESS)
        if path and not self._said:
            self._said = True
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"ran {self.name} in {os.getpid()}\n")

    def replace(self, owner: Any, name: str, replacement: Replacement) -> None:
        """Let `replacement(original, *arguments)` answer for a function, a method or a property of `owner`."""
        static = vars(owner).get(name)
        original: Any = static.fget if isinstance(static, property) else getattr(owner, name)
        if isinstance(static, classmethod):
            original = static.__func__

        @functools.wraps(original)
        def planted(*arguments: Any, **named: Any) -> Any:
            self.ran()
            return replacement(original, *arguments, **named)

        kinds: dict[type, Callable[[Any], Any]] = {
            property: property, classmethod: classmethod, staticmethod: staticmethod,
        }  # fmt: skip
        setattr(owner, name, kinds.get(type(static), lambda function: function)(planted))


@dataclass(frozen=True)
class Fault:
    """One way of being wrong.

    Attributes:
        name: Its id.
        area: The module it stands in.
        what: What is wrong, in one sentence.
        seen_in: Where it happened; empty for one that nobody reported yet.
        expects: Rows of which at least one must be killed, and the observation by which each is.
        blast: Rows or sections (`F-QUAL-074`, `qual`) whose verdict may change too.
        machine: `gpu` for what only shows on one.
        crash: Whether it ends or blocks the process; such kills count only where survival is what is claimed.
        early: Planted before the driver introduces itself, instead of before its first work.
        plant: Patches the engine's process; None for a fault of the sources.
        edit: Edits a copy of the sources and says which manifest builds it; None for a fault of the process.
        call_s: How long one call may take.
    """

    name: str
    area: str
    what: str
    seen_in: str
    expects: Mapping[str, str]
    blast: tuple[str, ...]
    machine: Machine
    crash: bool
    early: bool
    plant: Callable[[Plant], None] | None
    edit: Callable[[Path, Manifest], Manifest] | None
    call_s: float


_KNOWN: dict[str, Fault] = {}


def fault(
    *,
    expects: Mapping[str, str],
    blast: tuple[str, ...] = (),
    seen_in: str = "",
    machine: Machine = "cpu",
    crash: bool = False,
    early: bool = False,
    call_s: float = 60.0,
) -> Callable[[Callable[[Plant], None]], Callable[[Plant], None]]:
    """Declare a function that plants a fault into the engine's process; its docstring says what is wrong."""

    def declare(plant: Callable[[Plant], None]) -> Callable[[Plant], None]:
        _add(_declared(plant, expects, blast, seen_in, machine, crash, early, plant, None, call_s))
        return plant

    return declare


def source_fault(
    *, expects: Mapping[str, str], blast: tuple[str, ...] = (), seen_in: str = ""
) -> Callable[[Callable[[Path, Manifest], Manifest]], Callable[[Path, Manifest], Manifest]]:
    """Declare a function that spoils a copy of the sources, or the manifest's commands that build it."""

    def declare(edit: Callable[[Path, Manifest], Manifest]) -> Callable[[Path, Manifest], Manifest]:
        _add(_declared(edit, expects, blast, seen_in, "cpu", False, False, None, edit, 60.0))
        return edit

    return declare


def known_faults(module: Path | None = None) -> dict[str, Fault]:
    """All faults by name: those of this project, or of `module`, a Python file outside it."""
    if module is not None:
        before = dict(_KNOWN)
        _KNOWN.clear()
        try:
            _import_file(module)
            return dict(_KNOWN)
        finally:
            _KNOWN.clear()
            _KNOWN.update(before)
    for area in AREAS:
        importlib.import_module(f"conformance.faults.{area}")
    # Whoever imports the healthy variants declares them too; they are no faults.
    return {name: planted for name, planted in _KNOWN.items() if planted.area in AREAS}


def find_fault(name: str, module: Path | None = None) -> Fault:
    """The fault of this name.

    Raises:
        UnknownFault: there is none.
    """
    known = known_faults(module)
    if name not in known:
        raise UnknownFault(name)
    return known[name]


def _area_of(module: str) -> str:
    """A module of this package, or the package of modules that it belongs to; outside the project, the file's name."""
    return module.removeprefix(f"{__package__}.").partition(".")[0]


def _declared(function: Callable[..., Any], expects: Mapping[str, str], *rest: Any) -> Fault:
    what = " ".join((function.__doc__ or "").split())
    return Fault(
        function.__name__.replace("_", "-"), _area_of(function.__module__), what, rest[1], expects,
        rest[0], *rest[2:],
    )  # fmt: skip


def _add(declared: Fault) -> None:
    if declared.name in _KNOWN:
        raise FaultTwice(declared.name)
    _KNOWN[declared.name] = declared


def _import_file(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UnknownFault(str(path))
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
