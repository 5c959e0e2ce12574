"""Copies of the project in which mutants are tried, each with a process of its own that runs the tests in forks."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
KILLED, SURVIVED, BROKEN = "killed", "survived", "broken"
FAST, SLOW = "not slow", "slow"
TIME = "time limit"
_COPIED = ("conformance", "reference_engine", "checks", "reports", "tests", "docs", "benchmarks")
_FORKS = Path(__file__).with_name("forks.py")
# Two: a module of tests that cannot be collected, while the changed module itself can be imported.
_OUTCOMES = {0: SURVIVED, 1: KILLED, 2: KILLED, None: KILLED}
_NOTHING_SELECTED = 5


class TestsFail(Exception):
    """The tests of a module fail without a mutant: nothing that they say of mutants would mean anything."""

    def __init__(self, module: str, output: str) -> None:
        self.module = module
        super().__init__(f"the tests of {module} fail without a change:\n{output}")


@dataclass(frozen=True)
class Limits:
    """How long the fast tests and the slow ones of a module may take, in seconds; None where it has none such."""

    fast: float | None
    slow: float | None = None


class Copies:
    """Copies of the project, one for each worker."""

    def __init__(self, directory: Path, count: int) -> None:
        self._free: queue.Queue[_Copy] = queue.Queue()
        self._all = [_Copy(directory / f"copy-{number}") for number in range(count)]
        for copy in self._all:
            self._free.put(copy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for copy in self._all:
            copy.close()

    def limits(self, module: str, tests: list[str], most: float, *, slow: bool = True) -> Limits:
        """Try a module as it is, and give its mutants ten times as long as that took, and ten seconds.

        Without `slow` the slow tests are left out; what they alone would kill then counts as a survivor.

        Raises:
            TestsFail: the tests fail, or they do not notice that the module is empty.
        """
        copy = self._free.get()
        original = (ROOT / module).read_text(encoding="utf-8")
        try:
            took: list[float | None] = []
            for marks in (FAST, SLOW) if slow else (FAST,):
                ran = copy.run(module, original, tests, marks, most)
                if ran["ended"] not in {0, _NOTHING_SELECTED}:
                    raise TestsFail(module, ran["output"])
                took.append(None if ran["ended"] == _NOTHING_SELECTED else 10 + 10 * ran["seconds"])
            if copy.run(module, '"""Nothing."""\n', tests, FAST, most)["ended"] == 0:
                raise TestsFail(module, "they pass without it")
        finally:
            self._free.put(copy)
        return Limits(*took)

    def outcome(self, module: str, text: str, tests: list[str], limits: Limits) -> tuple[str, str]:
        """What the module's tests say of this text in its place, and by what: the slow ones try only survivors."""
        copy = self._free.get()
        try:
            outcome, by = SURVIVED, ""
            for marks, seconds in ((FAST, limits.fast), (SLOW, limits.slow)):
                if seconds is not None and outcome == SURVIVED:
                    ended = copy.run(module, text, tests, marks, seconds)["ended"]
                    outcome, by = _OUTCOMES.get(ended, BROKEN), TIME if ended is None else f"{marks}: {ended}"
            return outcome, by
        finally:
            self._free.put(copy)


class _Copy:
    def __init__(self, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        for name in _COPIED:
            shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.glob("*.*"):
            if file.is_file():
                shutil.copyfile(file, path / file.name)
        self._path = path
        # Two changes of one size within a second would share their bytecode.
        ours = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": ours, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        self._forks = subprocess.Popen(
            [sys.executable, str(_FORKS)],
            cwd=path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, module: str, text: str, tests: list[str], marks: str, seconds: float) -> dict[str, Any]:
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        original = (ROOT / module).read_text(encoding="utf-8")
        (self._path / module).write_text(text, encoding="utf-8")
        try:
            name = module.removesuffix(".py").replace("/", ".")
            asked = {"module": name, "tests": tests, "marks": marks, "seconds": seconds}
            self._forks.stdin.write(json.dumps(asked) + "\n")
            self._forks.stdin.flush()
            return json.loads(self._forks.stdout.readline())
        finally:
            (self._path / module).write_text(original, encoding="utf-8")

    def close(self) -> None:
        assert self._forks.stdin is not None
        self._forks.stdin.close()
        self._forks.wait()
