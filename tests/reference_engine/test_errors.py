"""Every error of the engine, built and shown."""

from __future__ import annotations

import dataclasses
import re
import typing

import pytest

from reference_engine import errors
from reference_engine.cli import EXIT_CODES

SAMPLES = {"str": "some\nthing", "int": 987654, "tuple[int, ...]": (31, 41)}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EngineError)]


@pytest.mark.parametrize("kind", KINDS)
def test_error_shows_its_fields_on_one_line_and_says_more_than_its_name(kind):
    values = {field.name: SAMPLES[str(field.type)] for field in dataclasses.fields(kind)}
    error = kind(**values)
    text = str(error)
    assert text
    assert text != kind.__name__
    assert text.isprintable()
    assert error.fields == values
    for value in values.values():
        shown = [str(item) for item in value] if isinstance(value, tuple) else [str(value).partition("\n")[0]]
        assert all(part in text for part in shown)
    assert 0 < error.exit_code < 126


def test_messages_of_hostile_names_are_bounded():
    error = errors.MissingTensor("m.safetensors", "\x1b[31m" + "x" * 10_000_000)
    assert len(str(error)) < 700
    assert "\x1b" not in str(error)


def test_there_is_one_type_a_cause():
    assert len(KINDS) >= 15
    assert len({typing.cast("str", kind.__doc__) for kind in KINDS}) == len(KINDS)


def test_exit_codes_are_those_that_the_command_line_tells():
    told = {int(code) for code in re.findall(r"(\d+) [a-z]", EXIT_CODES)}
    assert {kind.exit_code for kind in KINDS} <= told
    assert {kind.__name__ for kind in KINDS if kind.exit_code == 4} == {
        "ClosedHandle", "ContextTooLong", "InvalidArgument", "InvalidFile", "UnsupportedDtype",
    }  # fmt: skip
    assert {kind.__name__ for kind in KINDS if kind.exit_code == 8} == {
        "EngineError", "NonFiniteLogits", "OutOfDeviceMemory",
    }  # fmt: skip
