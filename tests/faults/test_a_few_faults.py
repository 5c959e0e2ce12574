"""A sample of the kill matrix on every change: one fault an area, each seen for what it is."""

import msgspec
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.faults.matrix import Matrix

FEW = (
    "qkv-bias-dropped", "rotation-backwards", "no-stop-ids", "trailing-bytes-unchecked", "f64-read-as-f32",
    "nan-scrubbed", "failure-ends-with-zero", "out-of-memory-aborts", "gguf-without-biases",
)  # fmt: skip


@pytest.mark.slow
def test_a_few_faults_are_seen_for_what_they_are_and_the_healthy_engine_survives(tmp_path):
    chosen = [argument for name in FEW for argument in ("--fault", name)]

    ended = CliRunner().invoke(app, ["severity", *chosen, "--devices", "none", "--out", str(tmp_path), "-n", "2"])

    matrix = msgspec.json.decode((tmp_path / "severity.json").read_bytes(), type=Matrix)
    assert {outcome.fault: outcome.reasons for outcome in matrix.faults} == {name: [] for name in FEW}
    assert matrix.false_alarms == []
    assert ended.exit_code == 0
