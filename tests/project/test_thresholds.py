"""Every number belongs to something that is observed, and everything observed that needs a number has one."""

import ast
import re

import pytest

from conformance.catalogue import load_catalogue
from conformance.thresholds import THRESHOLDS_PATH, MissingThreshold, load_thresholds
from conformance.trial.inventory import CHECKS_DIRECTORY

LIMITS = [(row, name, limit) for row, table in load_thresholds().rows.items() for name, limit in table.items()]
MEASURING = {"measured": ("limit",), "Sample": ("limit", "alpha", "max_sd"), "Growth": ("max_growth", "alpha")}
MEASURING |= {"Tokens": ("tie_margin",), "LogitsDistance": ("max_abs", "min_cosine", "tie_margin")}
MEASURING |= {"Cases": ("min_examples", "min_classes"), "Measured": ("limit",)}


@pytest.mark.parametrize(("row_id", "name", "limit"), LIMITS, ids=[f"{row}.{name}" for row, name, _ in LIMITS])
def test_every_threshold_is_of_a_listed_observation_of_a_written_row(row_id, name, limit):
    row = load_catalogue().row(row_id)

    assert name.split("/", 1)[0] in {*row.observes, *row.observes_on_gpu}
    assert limit.reason


def observed_directly():
    """Row, observation and kind, for every observation that a check names as a literal beside its kind."""
    functions = {row.function: row for row in load_catalogue().rows}
    for path in sorted(CHECKS_DIRECTORY.glob("test_*.py")):
        for check in ast.parse(path.read_text()).body:
            if isinstance(check, ast.FunctionDef) and check.name in functions:
                for kind, name in _named(check):
                    yield functions[check.name].id, name, kind


def _named(check):
    for call in (node for node in ast.walk(check) if isinstance(node, ast.Call)):
        kind = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        named = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "name")]
        if kind in MEASURING and named:
            text = ast.unparse(named[0])
            yield kind, re.match(r"f?['\"]([^'\"{]*)", text)[1].rstrip("/") if text[0] in "f'\"" else ""


DIRECT = sorted({each for each in observed_directly() if each[1]})


def test_there_are_direct_observations_to_look_at():
    assert len(DIRECT) >= 20


@pytest.mark.parametrize(("row_id", "name", "kind"), DIRECT, ids=["-".join(each) for each in DIRECT])
def test_every_direct_observation_that_needs_numbers_has_them(row_id, name, kind):
    limit = load_thresholds().limit(row_id, name)

    assert limit is not None
    assert all(getattr(limit, field) is not None for field in MEASURING[kind]), limit


def test_sequential_rules_state_their_looks_and_error_rate():
    for row_id, name, limit in LIMITS:
        if limit.max_sd is not None:
            assert list(limit.looks) == sorted(set(limit.looks)), (row_id, name)
            assert limit.looks[0] >= 2, (row_id, name)
            assert 0 < limit.alpha <= 0.01, (row_id, name)


def test_a_name_with_a_part_falls_back_to_its_base_and_an_exact_one_wins():
    thresholds = load_thresholds()

    assert thresholds.limit("F-CUDA-019", "error/tf32").limit == 1e-3
    assert thresholds.limit("F-CUDA-019", "error/ieee_f32").limit == 2e-6
    assert thresholds.limit("F-CUDA-019", "err") is None
    assert thresholds.limit("F-XYZ-001", "error") is None


def test_a_misspelt_field_is_an_error(tmp_path):
    path = tmp_path / "thresholds.toml"
    path.write_text('["F-CUDA-019".error]\nlimmit = 1\nreason = "x"\n')

    with pytest.raises(ValueError, match="limmit"):
        load_thresholds(path)


def test_a_missing_number_says_which():
    assert str(MissingThreshold("F-A-001", "x", "limit")) == "thresholds have no `limit` for F-A-001 x"
    assert len(load_thresholds(THRESHOLDS_PATH).sha256) == 64
