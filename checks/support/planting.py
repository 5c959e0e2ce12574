"""Positive controls for the build rows: a defect planted in an exported copy that the engine's tool must see."""

from __future__ import annotations

from pathlib import Path

from conformance.trial.stand import NotTried, Stand

_LINT = {"python": "import os, sys\nl = lambda: undefined_name\n", "rust": "fn main() { let unused = 1; }\n"}
_TEST = {"python": "def test_broken(:\n", "rust": "#[test] fn broken( {\n"}
_IMPORT = {"python": "import module_that_nobody_has_written\n"}


def plant_lint_violation(stand: Stand, copy: Path) -> Path:
    """Append unused imports and an undefined name to a source file of the copy."""
    return _append(copy, _source_file(stand, copy), _of_language(stand, _LINT))


def plant_broken_test(stand: Stand, copy: Path) -> Path:
    """Append a syntax error to a test file of the copy."""
    suffix = _suffix(stand)
    tests = sorted(path for path in copy.rglob(f"*{suffix}") if "test" in path.name and "tests" in path.parts)
    if not tests:
        raise NotTried("the exported sources hold no test file")
    return _append(copy, tests[0], _of_language(stand, _TEST))


def plant_broken_import(stand: Stand, copy: Path, packages: list[str]) -> Path:
    """Append an import of what does not exist to the first module of the packages."""
    modules = sorted(path for package in packages for path in (copy / package).rglob("*.py") if path.stat().st_size)
    if not modules:
        raise NotTried("the exported sources hold no module of the engine")
    return _append(copy, modules[0], _of_language(stand, _IMPORT))


def _source_file(stand: Stand, copy: Path) -> Path:
    suffix = _suffix(stand)
    largest = max((path for path in copy.rglob(f"*{suffix}") if "tests" not in path.parts), key=_size, default=None)
    if largest is None:
        raise NotTried("the exported sources hold no source file")
    return largest


def _size(path: Path) -> int:
    return path.stat().st_size


def _suffix(stand: Stand) -> str:
    return {"python": ".py", "rust": ".rs"}.get(stand.manifest.manifest.engine.language, ".py")


def _of_language(stand: Stand, texts: dict[str, str]) -> str:
    language = stand.manifest.manifest.engine.language
    if language not in texts:
        raise NotTried(f"no control is known for {language}")
    return texts[language]


def _append(copy: Path, file: Path, text: str) -> Path:
    file.write_text(file.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")
    return file.relative_to(copy)
