"""On two devices that are simulated the harness itself schedules rows as it does on two that are real."""

import shutil
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_rows_spread_over_two_devices_and_none_shares_its_own(tmp_path, monkeypatch):
    import simulated_devices

    monkeypatch.setattr(simulated_devices, "BESIDE_TIMED", ("F-QUAL-068", "F-MEM-021"))
    monkeypatch.setattr(simulated_devices, "TIMED", ("F-ERR-092",))
    told = simulated_devices.devices(tmp_path, seconds=2.0, names=("sleeper",))
    parts = told["parts"]
    assert not told["differing"]
    for part in parts.values():
        assert not any(cell["cause"] for cell in part["cells"])
        assert (part["disturbed"], part["tenants"]) == ([], [])
    assert all(len(cell["devices"]) == 1 for part in parts.values() for cell in part["cells"])
    devices = {name: {cell["devices"][0] for cell in part["cells"]} for name, part in parts.items()}
    assert {name: len(used) for name, used in devices.items()} == {"one": 1, "two": 2, "timed": 2}
    assert parts["one"]["most_rows_at_one_time"] == 1
    assert parts["two"]["most_rows_at_one_time"] == 2
    assert told["share"] < 1
