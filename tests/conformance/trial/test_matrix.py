"""A matrix leaves every cell's record or says which has none, and tries again exactly what changed."""

import json
import subprocess
import sys
import time

import msgspec
import psutil
import pytest
from trial_support import DRIVERS, ROOT, environment

from conformance.catalogue import load_catalogue
from conformance.matrix.cells import BrokenMatrix, Cell, load_matrix
from conformance.matrix.devices import NoSuchDevice, Place, check_served
from conformance.matrix.progress import Tally
from conformance.matrix.record import MATRIX_FILE, CellResult, MatrixRecord, collect, worst
from conformance.matrix.state import CellBusy, CellDirectory
from conformance.matrix.trial import CellDone, Planned, RowDone
from conformance.verdicts import ExitCode, Verdict
from reports.matrix import render_matrix

ROWS = ["F-ERR-094", "F-PARSE-041"]


def write_matrix(directory, engines=("a", "b"), models=("random",), **more):
    driver = directory / "parrot.py"
    driver.write_bytes((DRIVERS / "parrot.py").read_bytes())
    for name in engines:
        command = ["{python}", "{manifest_dir}/parrot.py", "honest"]
        text = f'[engine]\nname = "{name}"\n[driver]\ncommand = {json.dumps(command)}\n'
        (directory / f"{name}.toml").write_text(text)
    table = {"engines": [f"{name}.toml" for name in engines], "models": list(models), "rows": ROWS, **more}
    path = directory / "matrix.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    return path


def command(*words):
    return [sys.executable, "-m", "conformance", "matrix", *map(str, words)]


def run(*words):
    return subprocess.run(command(*words), capture_output=True, text=True, env=environment(), timeout=170, check=False)


def read(out):
    return msgspec.json.decode((out / MATRIX_FILE).read_bytes(), type=MatrixRecord)


@pytest.mark.slow
def test_cells_are_tried_once_and_again_when_the_engine_changes(tmp_path):
    matrix, out = write_matrix(tmp_path), tmp_path / "out"
    first = run(matrix, "--out", out, "-n", "1")
    record = read(out)
    assert first.returncode == record.exit_code != ExitCode.HARNESS, first.stderr
    assert [cell.engine for cell in record.cells] == ["a", "b"]
    assert all(list(cell.verdicts) == [row.id for row in load_catalogue().rows] for cell in record.cells)
    assert (out / "matrix.html").is_file()

    second = run(matrix, "--out", out, "-n", "1", "--places", "2")
    assert second.stdout.count("done before") == 2
    assert read(out) == record

    (tmp_path / "a.toml").write_text((tmp_path / "a.toml").read_text() + "# changed\n")
    third = run(matrix, "--out", out, "-n", "1", "--places", "2")
    assert third.stdout.count("done before") == 1
    assert read(out).cells[0].record != record.cells[0].record
    assert read(out).cells[0].verdicts == record.cells[0].verdicts
    assert read(out).cells[1] == record.cells[1]


@pytest.mark.slow
def test_a_killed_cell_is_named_and_the_next_call_tries_it(tmp_path):
    matrix, out = write_matrix(tmp_path, engines=("a",)), tmp_path / "out"
    with subprocess.Popen(
        command(matrix, "--out", out, "-n", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("cells/*/2*/record.jsonl")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (child,) = [
            each for each in psutil.Process(process.pid).children() if "conformance.matrix.trial" in each.cmdline()
        ]
        child.kill()
        told = process.communicate(timeout=60)
    assert process.returncode == ExitCode.HARNESS
    assert b"killed by signal 9" in told[1]
    assert read(out).cells[0].cause
    assert run(matrix, "--out", out, "-n", "1").returncode != ExitCode.HARNESS
    assert not read(out).cells[0].cause


@pytest.mark.slow
def test_the_tasks_of_a_cluster_make_the_same_matrix(tmp_path):
    matrix, out = write_matrix(tmp_path), tmp_path / "out"
    task = ["sh", str(ROOT / "docs" / "examples" / "matrix_task.sh")]
    shared = {"FALSIFY": f"{sys.executable} -m conformance", "MATRIX": str(matrix), "OUT": str(out)}
    for extra in ({"SLURM_ARRAY_TASK_ID": "1"}, {"JOB_COMPLETION_INDEX": "1"}):
        run(matrix, "--out", out, "--collect")
        assert read(out).cells[-1].cause == "no whole record"
        subprocess.run(task, env=environment(**shared, **extra), check=True, capture_output=True, timeout=100)
    done = run(matrix, "--out", out, "--collect")
    assert done.returncode == read(out).exit_code != ExitCode.HARNESS
    assert not any(cell.cause for cell in read(out).cells)
    outside = subprocess.run(task, env=environment(**shared, SLURM_ARRAY_TASK_ID="9"), check=False, capture_output=True)
    assert outside.returncode == ExitCode.USAGE


def test_a_cell_that_another_process_tries_is_left_to_it(tmp_path):
    cell = load_matrix(write_matrix(tmp_path)).cells[0]
    with CellDirectory(tmp_path, cell).locked(), pytest.raises(CellBusy), CellDirectory(tmp_path, cell).locked():
        pass


def test_cells_without_a_record_are_told_and_shut_the_gate(tmp_path):
    record = collect(load_matrix(write_matrix(tmp_path)), tmp_path)
    assert record.exit_code is ExitCode.HARNESS
    assert {cell.cause for cell in record.cells} == {"no whole record"}


@pytest.mark.parametrize(
    "text",
    ["", "engines = []", "engines = ['a']\nmodles = ['b']", "engines = ['a', 'a']", "engines = 1", "\0", "seed = -1"],
)
def test_a_broken_matrix_is_one_line(tmp_path, text):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(BrokenMatrix):
        load_matrix(path)


def test_a_device_that_is_not_there_is_refused_before_anything_runs():
    places = [Place("NVIDIA H100 0", {}), Place("NVIDIA H100 1", {})]
    check_served([Cell("1", "e", "m", "h100"), Cell("2", "e", "m", "here")], places)
    with pytest.raises(NoSuchDevice, match="A100"):
        check_served([Cell("1", "e", "m", "A100")], places)


def test_the_worst_cell_decides_and_nothing_is_not_green():
    assert worst([]) is ExitCode.UNDECIDED
    assert worst([ExitCode.OPEN]) is ExitCode.OPEN
    assert worst([ExitCode.OPEN, ExitCode.UNDECIDED, ExitCode.HARNESS, ExitCode.FALSIFIED]) is ExitCode.FALSIFIED
    assert worst([ExitCode.OPEN, ExitCode.HARNESS, ExitCode.UNDECIDED]) is ExitCode.HARNESS


def test_the_time_left_is_what_rows_took_over_the_places():
    cells = [Cell(str(number), "e", "m", "here") for number in range(3)]
    tally = Tally(cells, places=2)
    assert tally.seconds_left() is None
    tally.hear(cells[0], Planned(["x", "y"]))
    tally.hear(cells[0], RowDone("x", Verdict.CORROBORATED, 4.0))
    assert tally.seconds_left() == (4 + 2 * 8) / 2
    tally.hear(cells[0], CellDone(0))
    tally.hear(cells[1], CellDone(0, reused=True))
    assert tally.seconds_left() == 4


def test_the_page_of_fifty_engines_is_small_and_runs_nothing_of_theirs():
    rows = [row.id for row in load_catalogue().rows]
    cells = [
        CellResult(
            f"c{n}", "<script>alert(1)</script>\u202e", "m", "here", ExitCode.OPEN, verdicts=dict.fromkeys(rows, v)
        )
        for n, v in zip(range(50), list(Verdict) * 9, strict=False)
    ]
    page = render_matrix(MatrixRecord("0", rows, cells, ExitCode.OPEN), load_catalogue())
    assert len(page.encode()) <= 3_000_000
    assert "<script>" not in page
    assert page.count("<td ") == 5000
