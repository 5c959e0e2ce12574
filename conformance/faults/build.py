"""Sources and build commands in which something is missing that nobody would notice."""

from __future__ import annotations

from pathlib import Path

import msgspec

from conformance.faults.planting import source_fault
from conformance.manifest import CommandTable, Manifest


def _command(manifest: Manifest, table: str, command: list[str]) -> Manifest:
    """The manifest with another command in one of its tables."""
    found = getattr(manifest, table)
    assert isinstance(found, CommandTable)
    return msgspec.structs.replace(manifest, **{table: msgspec.structs.replace(found, command=command)})


def _edit(tree: Path, file: str, old: str, new: str) -> None:
    path = tree / file
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{file} has changed: {old}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def _append(tree: Path, file: str, text: str) -> None:
    path = tree / file
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


@source_fault(expects={"F-BUILD-001": "builds"}, blast=("build", "F-ERR-095"))
def build_leaves_nothing(tree: Path, manifest: Manifest) -> Manifest:
    """The build command ends with 0 and leaves no artefact."""
    del tree
    return _command(manifest, "build", ["{python}", "-c", "print('built')"])


@source_fault(expects={"F-BUILD-001": "builds"}, blast=("build", "F-ERR-095"))
def packaging_broken(tree: Path, manifest: Manifest) -> Manifest:
    """The project's metadata cannot be read."""
    _append(tree, "pyproject.toml", "\n[project\n")
    return manifest


@source_fault(expects={"F-BUILD-001": "imported_from_artefact"}, blast=("build", "F-ERR-095"))
def artefact_does_not_start(tree: Path, manifest: Manifest) -> Manifest:
    """What is built lacks a module that its driver imports."""
    (tree / "reference_engine" / "formats" / "opening.py").unlink()
    return manifest


@source_fault(expects={"F-BUILD-002": "resolves"}, blast=("build", "F-ERR-095"))
def loader_under_another_name(tree: Path, manifest: Manifest) -> Manifest:
    """The loader's role names a type that the artefact does not have."""
    roles = {**manifest.roles, "SafeTensorsCudaLoader": "reference_engine.loader:CudaLoader"}
    del tree
    return msgspec.structs.replace(manifest, roles=roles)


@source_fault(expects={"F-BUILD-003": "returned_by_loading"}, blast=("build",), seen_in="realizar c9adbf38")
def model_never_wired(tree: Path, manifest: Manifest) -> Manifest:
    """The model's role is a class that exists and that loading never returns."""
    _append(tree, "reference_engine/model.py", '\n\nclass CudaModel:\n    """A model that nobody makes."""\n')
    roles = {**manifest.roles, "SafeTensorsCudaModel": "reference_engine.model:CudaModel"}
    return msgspec.structs.replace(manifest, roles=roles)


@source_fault(expects={"F-BUILD-004": "holds_the_weights"}, blast=("build",))
def storage_never_wired(tree: Path, manifest: Manifest) -> Manifest:
    """The storage's role is a class that exists and that holds no weight."""
    _append(tree, "reference_engine/storage.py", '\n\nclass Storage:\n    """A storage that nobody uses."""\n')
    return msgspec.structs.replace(
        manifest, roles={**manifest.roles, "CudaStorage": "reference_engine.storage:Storage"}
    )


@source_fault(expects={"F-BUILD-005": "engine"}, blast=("build",))
def loading_is_a_stub(tree: Path, manifest: Manifest) -> Manifest:
    """`from_safetensors` has the right signature and raises."""
    _edit(
        tree, "conformance/engines/reference.py",
        "            engine = Engine.load(params.path, device, params.dtype)\n",
        '            raise errors.InvalidArgument("model", "loading is not there yet")\n',
    )  # fmt: skip
    return manifest


@source_fault(expects={"F-BUILD-006": "does_the_job"}, blast=("build",), seen_in="aprender#340")
def generating_is_a_stub(tree: Path, manifest: Manifest) -> Manifest:
    """`generate` has the right signature and gives back the prompt."""
    _edit(
        tree, "conformance/engines/reference.py", "            ids=result.ids,\n",
        "            ids=list(params.prompt_ids or []),\n",
    )  # fmt: skip
    return manifest


@source_fault(expects={"F-BUILD-007": "control_fails"})
def test_command_always_content(tree: Path, manifest: Manifest) -> Manifest:
    """The command that compiles the tests ends with 0 whatever they are."""
    del tree
    return _command(manifest, "tests", ["/bin/sh", "-c", "echo collected 12 items; true"])


@source_fault(expects={"F-BUILD-007": "compile"})
def a_test_does_not_compile(tree: Path, manifest: Manifest) -> Manifest:
    """One of the engine's own tests imports what is no longer there."""
    _append(tree, "tests/reference_engine/test_header.py", "\nfrom reference_engine.header import gone\n")
    return manifest


@source_fault(expects={"F-BUILD-008": "unexplained"})
def unsafe_without_a_word(tree: Path, manifest: Manifest) -> Manifest:
    """A raw pointer is read without saying why that is safe."""
    text = "\n\ndef peek(address: int) -> bytes:\n    import ctypes\n\n    return ctypes.string_at(address, 8)\n"
    _append(tree, "reference_engine/storage.py", text)
    return manifest


@source_fault(expects={"F-BUILD-009": "control_fails"})
def lint_selects_nothing(tree: Path, manifest: Manifest) -> Manifest:
    """The linter runs with no rule switched on."""
    del tree
    command = ["{python}", "-m", "ruff", "check", "--no-cache", "--isolated", "--ignore", "ALL", "--exit-zero", "."]
    return _command(manifest, "lint", command)


@source_fault(expects={"F-BUILD-009": "clean"})
def lint_has_a_warning(tree: Path, manifest: Manifest) -> Manifest:
    """A module of the engine imports what it does not use."""
    _append(tree, "reference_engine/device.py", "\nimport os\n")
    return manifest


@source_fault(expects={"F-BUILD-010": "absent_from_pages"})
def documentation_skips_a_module(tree: Path, manifest: Manifest) -> Manifest:
    """A public module is left out of the pages."""
    del tree
    docs = manifest.docs
    assert docs is not None
    return _command(manifest, "docs", [*docs.command, "!reference_engine.storage"])


@source_fault(expects={"F-BUILD-010": "control_fails"})
def documentation_never_fails(tree: Path, manifest: Manifest) -> Manifest:
    """The documentation's errors are swallowed by its command."""
    del tree
    docs = manifest.docs
    assert docs is not None
    return _command(manifest, "docs", ["/bin/sh", "-c", '"$@" 2>/dev/null; true', "sh", *docs.command])


@source_fault(expects={"F-ERR-095": "fields_lost"}, blast=("build",))
def an_error_loses_its_fields(tree: Path, manifest: Manifest) -> Manifest:
    """Out of memory is reported without the bytes asked for and free."""
    _edit(tree, "reference_engine/errors.py", "out of memory on {device}: asked for {asked} bytes",
          "out of memory on {device}")  # fmt: skip
    return manifest


@source_fault(expects={"F-ERR-095": "bare"}, blast=("build",))
def an_error_says_only_its_name(tree: Path, manifest: Manifest) -> Manifest:
    """An error's text is the name of its class."""
    text = '\n\nclass Nameless(EngineError):\n    """Says nothing."""\n\n'
    text += "    def __str__(self) -> str:\n        return type(self).__name__\n"
    _append(tree, "reference_engine/errors.py", text)
    return manifest


@source_fault(expects={"F-ERR-095": "unbuilt"}, blast=("build",))
def an_error_cannot_be_shown(tree: Path, manifest: Manifest) -> Manifest:
    """Building an error's text fails with an error of its own."""
    _edit(tree, "reference_engine/errors.py", 'text = "cannot write {path}: {cause}"',
          'text = "cannot write {place}: {cause}"')  # fmt: skip
    return manifest
