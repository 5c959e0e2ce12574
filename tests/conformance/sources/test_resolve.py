"""Roles are resolved inside the engine's environment, and whatever its import does is an answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.sources import errors_shown, resolve

MODULE = '''
class Loader:
    """A role."""

    def __init__(self, path, device): ...

    @classmethod
    def load(cls, path, device): ...

VALUE = 3

class Base(Exception): ...

class Told(Base):
    def __init__(self, path, count: int, sizes: list[int], *, ratio: float):
        super().__init__(f"{path}: {count} of {sizes}, {ratio:g}")

class Deaf(Told):
    def __init__(self, path):
        Exception.__init__(self, "something went wrong")

class Plain(Base): ...

class Bare(Base):
    def __str__(self):
        return type(self).__name__

class Unbuilt(Base):
    def __init__(self):
        raise RuntimeError("never")
'''


@pytest.fixture
def ask(tmp_path):
    """Runs one of the scripts in a process of its own, where the engine lies in the current directory."""
    (tmp_path / "engine_role.py").write_text(MODULE)

    def run(script, argument):
        path = Path(script.__file__)
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; sys.argv = ['x', {argument!r}]; "
        code += f"runpy.run_path({str(path)!r}, run_name='__main__')"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_classes_methods_and_values_are_found_with_their_names_and_parameters(ask):
    found = ask(
        resolve,
        json.dumps(
            {"a": "engine_role:Loader", "b": "engine_role:Loader.load", "c": "engine_role:VALUE", "d": "math:hypot"}
        ),
    )

    assert (found["a"]["kind"], found["a"]["parameters"]) == ("class", ["path", "device"])
    assert (found["b"]["kind"], found["b"]["name"]) == ("function", "engine_role.Loader.load")
    assert (found["c"]["kind"], found["c"]["parameters"]) == ("value", [])
    assert found["a"]["file"].endswith("engine_role.py")
    assert found["d"]["found"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('no device')", "RuntimeError: no device"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("x = (", "SyntaxError"),
        ("import no_such_module", "ModuleNotFoundError"),
    ],
)
def test_whatever_an_import_raises_is_an_answer_for_that_role_only(ask, tmp_path, source, error):
    (tmp_path / "engine_broken.py").write_text(source)

    found = ask(resolve, json.dumps({"bad": "engine_broken:X", "good": "engine_role:Loader"}))

    assert found["bad"]["found"] is False
    assert error in found["bad"]["error"]
    assert found["good"]["found"]


@pytest.mark.parametrize("target", [":", "", "engine_role:Nothing", "engine_role:Loader.nothing", "engine_role"])
def test_a_role_that_is_not_there_resolves_to_nothing(ask, target):
    assert ask(resolve, json.dumps({"role": target}))["role"]["found"] is False


def test_every_error_is_built_and_what_it_keeps_to_itself_is_named(ask):
    shown = ask(errors_shown, "engine_role:Base")

    assert set(shown) == {"Told", "Deaf", "Plain", "Bare", "Unbuilt"}
    assert (shown["Told"]["lost"], shown["Told"]["says_something"]) == ([], True)
    assert shown["Deaf"]["lost"] == ["path"]
    assert (shown["Plain"]["lost"], shown["Plain"]["says_something"]) == ([], True)
    assert shown["Bare"]["says_something"] is False
    assert shown["Unbuilt"] == {"error": "RuntimeError: never"}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("int", 4711),
        ("float", 4711.0),
        ("Path", Path("/given/x-4711")),
        ("str", "x-4711"),
        ("str | int", "x-4711"),
        ("Sequence[int]", [4711]),
        ("list[str]", ["x-4711"]),
    ],
)
def test_samples_are_of_the_parameters_type_and_can_be_recognised(annotation, value):
    assert errors_shown.sample("x", annotation, 0) == value


def test_the_scripts_functions_answer_in_this_process_too():
    assert resolve.resolve("pathlib:Path.cwd")["kind"] == "function"
    assert resolve.resolve("math:pi")["parameters"] == []
    assert resolve.resolve("builtins:dict")["found"]
    assert resolve.resolve("no_such:x")["found"] is False
    assert errors_shown.main("conformance.protocol.failures:DriverFailure")["DriverHung"]["lost"] == ["stderr_tail"]
