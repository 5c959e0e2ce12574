"""Doses are real: the process takes longer by the share, and holds more by the bytes."""

import time
from dataclasses import replace

import made_pools
import pytest

from checks.support import growing
from conformance.calibration.collecting import MOST_LOST, Bench, collect_grown, collect_timed, subjects
from conformance.calibration.dosing import Dose, DoseFile
from conformance.calibration.pool import PoolFile, read_pool
from conformance.calibration.running import Request, _bench, collect_in, dosed_manifest, fewest
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import Generate, Handle, ModelLoad


@pytest.fixture
def bench(tmp_path) -> Bench:
    directory = tmp_path / "run"
    directory.mkdir()
    request = Request(pool=tmp_path / "pool.jsonl", processes=1, seconds=300)
    return _bench(request, directory, PoolFile(request.pool), time.monotonic() + 300, lambda _: None)


def test_a_dose_goes_through_the_file_and_comes_back(tmp_path):
    doses = DoseFile(tmp_path / "dose.json")
    doses.give(Dose((0.0, 0.1), leak=1024, accounted=True))
    doses.note([0.5, 0.0])

    assert doses.dose() == Dose((0.0, 0.1), 1024, True)
    assert doses.before_answer() == [0.5, 0.0]


def test_a_slowed_call_takes_longer_by_the_share_and_notes_what_lies_on_the_way(bench):
    with subjects(bench, 1, "F-PERF-081") as [subject]:
        model = subject.engine.call("model.load", ModelLoad(str(bench.checkpoint), "cpu", "F32"))
        request = Generate(model.handle, 64, prompt_ids=bench.prompt(16), ignore_eos=True)
        subject.engine.call("generate", request)
        subject.doses.give(Dose((0.0, 1.0, 4.0)))
        began = time.perf_counter()
        subject.engine.call("generate", request)
        took = time.perf_counter() - began
        healthy, doubled, fivefold = subject.doses.before_answer()

    work = healthy / 4
    assert fivefold == 0
    assert healthy - doubled == pytest.approx(work, rel=0.05)
    assert took >= 5 * work


def test_a_leak_is_in_the_account_or_only_in_memory_and_another_dose_starts_over(bench):
    def account():
        return subject.engine.call("storage.account", Handle(device.handle)).live_bytes

    with subjects(bench, 1, "F-MEM-032") as [subject], subject.stand.opened_device() as device:
        model = subject.engine.call("model.load", ModelLoad(str(bench.plan.model_dir), "cpu", "F32"))
        request = Generate(model.handle, 1, prompt_ids=bench.prompt(4), ignore_eos=True)
        seen = []
        for dose in (Dose(leak=4096, accounted=True), Dose(leak=4096), Dose()):
            subject.doses.give(dose)
            for _ in range(3):
                subject.engine.call("generate", request)
            seen.append(account())

    assert seen == [3 * 4096, 0, 0]


def test_the_dosed_engine_is_the_reference_with_another_driver():
    manifest = dosed_manifest()

    assert manifest.manifest.engine.reference
    assert manifest.filled(manifest.manifest.driver.command)[1:] == ["-m", "conformance.calibration.dosing"]


def test_nothing_is_begun_when_the_time_is_up(bench):
    late = replace(bench, deadline=0.0)
    late.pool.append(made_pools.session())

    collect_timed(late, 1)
    collect_grown(late, 1, 1)

    assert read_pool([late.pool.path]).timed == ()


def test_a_lost_process_costs_its_value_and_too_many_end_the_session(bench):
    said = []
    losing = replace(bench, say=said.append)

    def lose():
        with losing.losing(), subjects(losing, 1, "F-PERF-081") as [subject]:
            subject.engine.call("model.load", ModelLoad("/nowhere", "cpu", "F32"))

    for _ in range(MOST_LOST):
        lose()
    assert len(said) == MOST_LOST
    assert "lost" in said[0]
    with pytest.raises(EngineRefused):
        lose()


@pytest.fixture
def short_series(monkeypatch):
    """Series of a tenth of the operations: as many as there are doses, and no shorter for what is looked at here."""
    for name in ("GENERATIONS", "UPLOADS", "CYCLES"):
        monkeypatch.setattr(growing, name, 8)
        monkeypatch.setattr(growing, f"{name}_WARM_UP", 2)


@pytest.mark.slow
@pytest.mark.usefixtures("short_series")
def test_a_session_fills_the_pool_and_a_second_one_has_nothing_to_add(tmp_path):
    said = []
    request = Request(pool=tmp_path / "pool.jsonl", processes=1, seconds=600)

    collect_in(tmp_path, request, said.append)
    collect_in(tmp_path, request, said.append)
    pool = read_pool([request.pool])

    assert len(pool.sessions) == 2
    assert len(pool.timed) == 1
    assert fewest(request.pool, ("timed", "grown")) == 1
    assert len(pool.grown) == 5 + 9 + 9
    load = pool.timed[0].values["load"]
    assert load == sorted(load)
    # Others may have had the processor between two of them.
    assert load[4] / load[0] == pytest.approx(1.1, abs=0.09)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.jsonl"]
