"""`falsify severity`: a long job that can be cut off, goes on, and is judged from what it left."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conformance.catalogue import load_catalogue
from conformance.faults import running
from conformance.faults.ledger import Ledger
from conformance.faults.matrix import Matrix, rows_for
from conformance.faults.planting import UnknownFault, known_faults
from conformance.faults.pool import Bench, Task, Trials
from conformance.faults.running import Campaign, chosen_faults, join, shard_of
from conformance.probes.nvml import Gpu
from conformance.trial.sharding import NotAShard

OUTSIDE = Path(__file__).with_name("outside_faults.py")


def severity(*arguments):
    command = [sys.executable, "-m", "conformance", "severity", "--fault-module", OUTSIDE, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.slow
def test_faults_from_outside_the_project_are_tried_kept_and_joined(tmp_path):
    out = tmp_path / "out"
    first = severity("--out", out, "--shard", "1/2", "-n", "2")
    assert first.returncode == 0, first.stderr
    assert "coverage-unchecked" in first.stderr

    whole = severity("--out", out, "-n", "2")
    assert whole.returncode == 1
    assert "coverage-unchecked" not in whole.stderr
    matrix = msgspec.json.decode((out / "severity.json").read_bytes(), type=Matrix)
    seen = {outcome.fault: outcome.specific for outcome in matrix.faults}
    assert seen == {"coverage-unchecked": True, "nothing-is-wrong": False}
    assert matrix.false_alarms == []
    assert list((out / "trials").iterdir()) == []

    joined = severity("--join", out, "--out", tmp_path / "both.json")
    assert joined.returncode == 1
    assert msgspec.json.decode((tmp_path / "both.json").read_bytes(), type=Matrix).faults == matrix.faults
    assert "coverage-unchecked" in (tmp_path / "both.html").read_text()


def test_what_was_asked_for_wrongly_ends_with_2(tmp_path):
    (tmp_path / "tried").mkdir()
    (tmp_path / "tried" / "00000-cpu-x.json").write_text("no trial")
    joining = ["--join", tmp_path, "--out", tmp_path / "j"]
    for arguments in (["--shard", "3/2"], ["--fault", "no-such"], ["--devices", "first"], joining):
        ended = severity(*arguments)
        assert ended.returncode == 2, arguments
        assert len(ended.stderr.splitlines()) == 1


def test_asking_for_no_fault_at_all_is_never_green(tmp_path):
    known = known_faults()

    assert {fault.area for fault in chosen_faults(known, [], ["rotary", "speed"], "cpu")} == {"rotary", "speed"}
    for names, areas, machine in ((["no-such"], [], ""), ([], ["no-such"], ""), (["tf32-switched-on"], [], "cpu")):
        with pytest.raises(UnknownFault):
            chosen_faults(known, names, areas, machine)
    with pytest.raises(UnknownFault):
        join([tmp_path], known, tmp_path / "both.json")


def test_shards_are_all_faults_once():
    faults = chosen_faults(known_faults(), [], [], "cpu")

    parts = [shard_of(faults, f"{number}/5") for number in range(1, 6)]

    assert sorted(each.name for part in parts for each in part) == sorted(each.name for each in faults)
    assert shard_of(faults, "") == faults
    for wrong in ("0/2", "3/2", "1", "a/b", "1/"):
        with pytest.raises(NotAShard):
            shard_of(faults, wrong)


def test_a_trial_that_the_harness_itself_ends_counts_for_nothing_and_says_why(tmp_path):
    bench = Bench(known_faults(OUTSIDE), OUTSIDE, tmp_path, 1, lambda _line: None)

    ((task, tried),) = Trials(bench).run([Task("nothing-is-wrong", ["F-NONE-001"], smoked=False)])

    assert tried.rows == []
    assert tried.lost == task.rows
    assert "F-NONE-001" in tried.cause.splitlines()[-1]


def test_a_trial_over_its_limit_is_ended_and_counts_for_what_it_had_finished(tmp_path):
    said = []
    bench = Bench(known_faults(OUTSIDE), OUTSIDE, tmp_path, 1, said.append, limit_s=0.2)

    ((task, tried),) = Trials(bench).run([Task("nothing-is-wrong", ["F-PARSE-041"])])

    assert tried.lost == task.rows
    assert tried.cause == "no result within 0.2 s"
    assert "LOST 1 rows" in said[0]
    assert list(tmp_path.iterdir()) == []
    assert Ledger(tmp_path / "none").entries == []


@pytest.fixture
def campaign_on_a_gpu(tmp_path, monkeypatch):
    """The planning of a campaign as on a machine with one GPU; nothing is run."""
    device = Gpu(0, "simulated", "GPU-0", "0000:00:06.0", 80 << 30, 0, "580", "13.0", None, None, None, None, None, [])
    monkeypatch.setattr(running, "gpus", lambda: [device])
    known = known_faults()
    names = [name for name, planted in known.items() if planted.machine == "gpu"]
    bench = Bench({name: known[name] for name in names}, None, tmp_path, 1, lambda _line: None)
    return Campaign(Ledger(tmp_path / "tried"), bench)


def test_on_a_gpu_only_the_rows_that_must_be_alone_are_tried_alone(campaign_on_a_gpu):
    alone = {row.id for row in load_catalogue().rows if row.alone}
    faults = campaign_on_a_gpu._bench.faults
    wanted = {name: rows_for(planted, full=False) for name, planted in faults.items()}

    tasks = list(campaign_on_a_gpu._missing(wanted))

    assert all(set(task.rows) <= alone if task.alone else alone.isdisjoint(task.rows) for task in tasks)
    for name, rows in wanted.items():
        mine = [task for task in tasks if task.fault == name]
        assert sorted(row for task in mine for row in task.rows) == sorted(rows)
        assert [task.smoked for task in mine] == [True, *[False] * (len(mine) - 1)]
    first = next(task for task in tasks if task.fault == "first-token-compiles" and task.alone)
    assert first.rows == ["F-PERF-082"]
