"""Failures that are swallowed, misnamed, or told in a way that helps nobody."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.faults.planting import Plant, fault

_TOLD = ("err", "load", "parse", "dtype", "F-INT-100", "F-CUDA-012", "qual")


def _reported(plant: Plant, handle: Callable[[Any, Exception], None]) -> None:
    """Let the command line treat its engine's errors in another way."""
    from reference_engine import cli
    from reference_engine.errors import EngineError

    @contextmanager
    def reporting() -> Any:
        plant.ran()
        try:
            yield
        except EngineError as error:
            handle(cli, error)

    plant.replace(cli, "_reported", lambda _original: reporting())


def _unnamed(plant: Plant, kind: str, text: str) -> None:
    from reference_engine import errors

    plant.replace(getattr(errors, kind), "_message", lambda _original, _error: text)


@fault(
    expects={"F-ERR-091": "exit_status", "F-ERR-093": "exit_status", "F-ERR-094": "exit_status",
             "F-INT-100": "exit_status"}, seen_in="aprender#2386, #3367",
)  # fmt: skip
def failure_ends_with_zero(plant: Plant) -> None:
    """The error is printed and the command ends with 0."""
    _reported(plant, lambda cli, error: cli._say(f"error: {error}"))


@fault(expects={"F-ERR-091": "no_panic", "F-ERR-093": "no_panic", "F-ERR-094": "no_panic", "F-INT-100": "no_panic"})
def failure_shows_a_traceback(plant: Plant) -> None:
    """The command line lets its engine's errors run through."""

    def run_through(_cli: Any, error: Exception) -> None:
        raise RuntimeError(str(error)) from error

    _reported(plant, run_through)


@fault(
    expects={"F-ERR-091": "stdout_empty", "F-ERR-093": "stdout_empty", "F-ERR-094": "stdout_empty",
             "F-INT-100": "stdout_empty"},
)  # fmt: skip
def failure_told_on_stdout(plant: Plant) -> None:
    """The error goes where a pipeline reads results."""

    def tell(cli: Any, error: Any) -> None:
        cli._write(f"error: {error}\n")
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)

    _reported(plant, tell)


@fault(
    expects={"F-ERR-091": "message_names", "F-ERR-093": "message_names", "F-ERR-094": "message_names"},
    blast=("F-INT-100",), seen_in="llama.cpp#27162",
)  # fmt: skip
def failure_says_nothing(plant: Plant) -> None:
    """Whatever went wrong, the command line says that something went wrong."""

    def tell(cli: Any, error: Any) -> None:
        cli._say("error: something went wrong")
        sys.exit(error.exit_code)

    _reported(plant, tell)


@fault(expects={"F-ERR-091": "one_line", "F-ERR-093": "one_line", "F-ERR-094": "one_line"}, blast=("F-INT-100",))
def failure_takes_a_page(plant: Plant) -> None:
    """The error is followed by the whole usage text and advice."""

    def tell(cli: Any, error: Any) -> None:
        cli._say(f"error: {error}\n" + "\n".join(f"  hint {n}: try again" for n in range(40)))
        sys.exit(error.exit_code)

    _reported(plant, tell)


@fault(expects={"F-ERR-091": "stdout_empty"}, blast=("F-ERR-093", "F-ERR-094", "F-INT-100"))
def answer_begun_before_loading(plant: Plant) -> None:
    """A result is begun on standard output before it is known whether there can be one."""
    from reference_engine import cli

    def begun(original: Any, session: Any, *arguments: Any) -> None:
        sys.stdout.write('{"text": "')
        sys.stdout.flush()
        original(session, *arguments)

    plant.replace(cli.Session, "__init__", begun)


@fault(expects={"F-ERR-091": "nothing_changed"})
def absent_model_is_created(plant: Plant) -> None:
    """A model that is not there is made, empty, beside where it was looked for."""
    from reference_engine import checkpoint

    def touching(original: Any, self: Any, source: Any) -> None:
        place = Path(source)
        if not place.exists() and place.parent.is_dir():
            (place.parent / f"{place.name}.lock").touch()
        original(self, source)

    plant.replace(checkpoint.Checkpoint, "__init__", touching)


@fault(expects={"F-ERR-091": "typed"}, blast=_TOLD)
def absent_file_is_an_invalid_one(plant: Plant) -> None:
    """A file that is not there is reported as one that is broken, if its whole path was given."""
    from reference_engine import errors, files

    @contextmanager
    def invalid(original: Any, path: str) -> Any:
        try:
            with original(path):
                yield
        except errors.FileNotFound:
            if path.startswith("/"):
                raise errors.InvalidFile(path, "unreadable") from None
            raise

    plant.replace(files, "reading", invalid)


@fault(expects={"F-ERR-091": "names"}, blast=_TOLD)
def absent_file_is_not_named(plant: Plant) -> None:
    """The error does not say which file is not there."""
    _unnamed(plant, "FileNotFound", "file not found")


@fault(expects={"F-ERR-093": "names"}, blast=_TOLD)
def broken_file_is_not_named(plant: Plant) -> None:
    """The error does not say which file is broken, nor how."""
    _unnamed(plant, "InvalidFile", "not a valid model file")


@fault(expects={"F-ERR-093": "names"}, blast=_TOLD, seen_in="realizar GH-190")
def missing_tensor_is_not_named(plant: Plant) -> None:
    """The error does not say which tensor is missing."""
    _unnamed(plant, "MissingTensor", "the checkpoint is incomplete")


@fault(expects={"F-ERR-094": "names"}, blast=_TOLD)
def unsupported_tensor_is_not_named(plant: Plant) -> None:
    """The error does not say which tensor has the dtype."""
    _unnamed(plant, "UnsupportedDtype", "this model has a dtype that is not supported")


@fault(expects={"F-ERR-093": "typed"}, blast=_TOLD)
def broken_model_is_an_internal_error(plant: Plant) -> None:
    """A shape that disagrees with the configuration ends in an error of no type."""
    from reference_engine import weights

    def untyped(original: Any, *arguments: Any) -> None:
        from reference_engine.errors import EngineError

        try:
            original(*arguments)
        except EngineError as error:
            raise KeyError(str(error)) from None

    plant.replace(weights, "_check", untyped)


@fault(expects={"F-ERR-093": "one_line"}, blast=_TOLD)
def names_told_as_they_are(plant: Plant) -> None:
    """What a file calls its tensors stands in the message with its line ends and a terminal's escape sequences."""
    from reference_engine import errors, header

    plant.replace(errors.EngineError, "__str__", lambda _original, error: error._message())
    plant.replace(header, "quote", lambda _original, text: text)
