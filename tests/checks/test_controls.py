"""Rows that measure can be failed: the same measurement on an engine that is slowed, leaks or hoards."""

import psutil
import pytest
from control_stands import judged, stand_of, tried

from checks.support import pool
from checks.support.timing import pinned_rate
from conformance.corpus.models import resolve_model
from conformance.observations import Sample
from conformance.probes.nvml import gpus
from conformance.protocol.client import Engine
from conformance.verdicts import Rehearsed, Verdict

LEAKS = {
    "F-MEM-030": "RefillsTooEarly",
    "F-MEM-032": "LeaksUploads",
    "F-CUDA-020": "LeaksDevices",
}
FORGIVING = {"F-MEM-032": "ForgivesDroppedHandles", "F-CUDA-020": "ForgivesClosedDevices"}
ON_GPU = LEAKS | {
    "F-MEM-029": "SlowLink",
    "F-MEM-033": "IgnoresPinned",
    "F-MEM-034": "WaitsForEachCopy",
    "F-PERF-081": "SlowLoad",
    "F-PERF-082": "SlowFirstToken",
    "F-PERF-083": "SlowDecode",
    "F-PERF-084": "SlowDecode",
    "F-PERF-085": "NoCacheInSilence",
    "F-PERF-086": "Hoards",
    "F-PERF-087": "LeaksGenerations",
    "F-PERF-088": "SlowDecode",
    "F-PERF-089": "SlowDecode",
}
SOFT = {"F-MEM-034", "F-PERF-084", "F-PERF-088"}


@pytest.mark.slow
@pytest.mark.parametrize(("row", "driver"), LEAKS.items())
def test_a_leak_or_a_race_fails_the_rehearsal(tmp_path, row, driver):
    assert tried(tmp_path, driver, row)[row].rehearsed is Rehearsed.FAILED


@pytest.mark.slow
@pytest.mark.parametrize(("row", "driver"), FORGIVING.items())
def test_a_handle_that_outlives_its_thing_fails_the_rehearsal(tmp_path, row, driver):
    found = tried(tmp_path, driver, row)[row]

    assert found.rehearsed is Rehearsed.FAILED
    assert {each.name.split("/")[0] for each in found.findings if each.verdict is Verdict.FALSIFIED} == {"misused"}


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["LeaksGenerations"])
def test_a_leak_of_each_generation_is_falsified(tmp_path, driver):
    row = tried(tmp_path, driver, "F-PERF-087")["F-PERF-087"]

    assert row.verdict is Verdict.FALSIFIED, row.reason


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["NoCache", "NoCacheInSilence"])
def test_recomputing_instead_of_caching_is_never_green(tmp_path, driver):
    row = tried(tmp_path, driver, "F-PERF-085")["F-PERF-085"]

    silent = driver == "NoCacheInSilence"
    ratio = next(each for each in row.findings if each.name == "recompute_ratio")
    assert ratio.verdict is Verdict.FALSIFIED, ratio
    assert silent or row.verdict is Verdict.FALSIFIED, row.reason


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason="needs an NVIDIA device")
@pytest.mark.parametrize("driver", sorted(set(ON_GPU.values())))
def test_each_measured_row_fails_on_a_gpu(tmp_path, driver):
    rows = [row for row, spoilt in ON_GPU.items() if spoilt == driver]

    found = tried(tmp_path, driver, *rows, model="fixture")

    told = {row: f"{found[row].verdict.value} {found[row].reason}" for row in rows}
    assert [row for row in rows if found[row].verdict is not expected_of(row)] == [], told


def expected_of(row):
    return Verdict.WARNING if row in SOFT else Verdict.FALSIFIED


@pytest.fixture
def small_pool(monkeypatch):
    """The pool of fresh processes on the CPU: a checkpoint of the size of a test, and resident memory for NVML."""
    directory = resolve_model("random").directory
    monkeypatch.setattr(pool, "_POOL", [])
    monkeypatch.setattr(pool, "_IDS", 200)
    monkeypatch.setattr(pool, "geometry_checkpoint", lambda _dtype: directory)
    monkeypatch.setattr(pool, "process_memory", lambda _index, pid: psutil.Process(pid).memory_info().rss)
    monkeypatch.setattr(pool, "STAGED_BYTES", 1024 * 1024)
    monkeypatch.setattr(pool, "SHORT", 3)
    monkeypatch.setattr(pool, "LONG", 35)
    monkeypatch.setattr(pool, "LONG_PROMPT", 64)


TIMED = {
    "SlowLoad": ("F-PERF-081", "load_s"),
    "SlowFirstToken": ("F-PERF-082", "first_token_32_s"),
    "SlowDecode": ("F-PERF-083", "decode_rate"),
}
NAMES = {"F-PERF-081": "load", "F-PERF-082": "first_token/32", "F-PERF-083": "rate"}


@pytest.mark.slow
@pytest.mark.parametrize("driver", TIMED)
def test_the_pool_sees_a_process_that_is_slow(tmp_path, small_pool, driver):
    row_id, value = TIMED[driver]
    with stand_of(tmp_path, driver, row_id) as stand:
        pool._grow(stand, 3)
        values = [run[value] for run in pool._POOL] * 2
        stand.observe(Sample(name=NAMES[row_id], values=values[:5], unit="x"))
        finding = judged(stand).findings[0]

    assert finding.verdict is Verdict.FALSIFIED, finding


@pytest.mark.slow
def test_one_fresh_process_yields_a_value_for_every_timed_row(tmp_path, small_pool):
    with stand_of(tmp_path, "Healthy", "F-PERF-083", others=tuple(pool.NEEDS)) as stand:
        (run,) = pool.all_runs(stand)
        assert pool.all_runs(stand)[0] is run
        pool._grow(stand, 3)
        assert len(pool.all_runs(stand)) == 3

    assert len(run.ids) == 35
    assert run.wrong_steps == []
    assert min(run.values.values()) > 0
    assert run["peak_bytes"] > run["weight_bytes"]
    assert set(run.values) == {*PARTS["F-PERF-083"], "pinned_rate"}


PARTS = {
    "F-MEM-029": ("pinned_rate",),
    "F-PERF-081": ("open_s", "load_s", "weight_bytes", "peak_bytes"),
}
PARTS["F-PERF-082"] = (*PARTS["F-PERF-081"], "first_token_32_s", "first_token_1000_s")
PARTS["F-PERF-083"] = PARTS["F-PERF-086"] = (*PARTS["F-PERF-082"], "decode_rate")


@pytest.mark.slow
@pytest.mark.parametrize("row_id", PARTS)
def test_a_process_does_no_more_than_the_chosen_rows_need(tmp_path, small_pool, monkeypatch, row_id):
    served = []
    close = Engine.close
    monkeypatch.setattr(Engine, "close", lambda engine: served.append(set(engine.served)) or close(engine))
    with stand_of(tmp_path, "Healthy", row_id) as stand:
        (run,) = pool.all_runs(stand)

    assert set(run.values) == set(PARTS[row_id])
    link, model = {"storage.stage", "storage.upload_staged"}, {"model.load"}
    assert (link if row_id == "F-MEM-029" else model) <= served[0]
    assert served[0].isdisjoint(model if row_id == "F-MEM-029" else link)
    assert ("generate" in served[0]) == (row_id in {"F-PERF-082", "F-PERF-083", "F-PERF-086"})
    assert bool(run.ids) == ("model.logits" in served[0]) == (row_id in {"F-PERF-083", "F-PERF-086"})
    assert stand.weights == ("" if row_id == "F-MEM-029" else "geometry")


def test_what_a_row_of_the_pool_needs_comes_without_gaps():
    order = (pool.LOAD, pool.FIRST_TOKENS, pool.DECODE)
    assert all(needs in {(pool.LINK,), *(order[:end] for end in (1, 2, 3))} for needs in pool.NEEDS.values())


@pytest.mark.slow
def test_a_link_of_one_gigabyte_a_second_is_measured_as_that(tmp_path):
    from checks.support.tensors import bits_of, host_tensor

    with stand_of(tmp_path, "SlowLink", "F-MEM-029") as stand, stand.opened_device() as device:
        count = 2 * 1024 * 1024
        source = host_tensor(stand, "F32", [count], bits_of("F32", count, stand.random))
        rate = pinned_rate(stand.engine, device.handle, source)
        stand.observe(Sample(name="bandwidth", values=[rate, rate * 1.001] * 3, unit="B/s"))
        finding = judged(stand).findings[0]

    assert rate < 1.1e9
    assert finding.verdict is Verdict.FALSIFIED, finding


def test_every_row_that_runs_alone_or_seeks_a_leak_has_a_control():
    from conformance.catalogue import load_catalogue

    measured = {row.id for row in load_catalogue().rows if row.alone} - {"F-ERR-092"}

    assert measured <= {*ON_GPU, "F-PERF-090"}
