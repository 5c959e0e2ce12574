"""`falsify calibrate` on made pools, and `falsify render` with what it left."""

from pathlib import Path

import made_pools
import pytest
from typer.testing import CliRunner

from conformance.calibration.pool import PoolFile
from conformance.calibration.results import read_calibration
from conformance.cli import app

ROOT = Path(__file__).parents[3]


def pool_in(directory, pool):
    file = PoolFile(directory / "pool.jsonl")
    for line in (*pool.sessions, *pool.timed, *pool.grown):
        file.append(line)
    return file.path


def called(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def test_a_pool_becomes_a_file_and_a_page_and_a_scorecard_shows_it(tmp_path):
    pool = pool_in(tmp_path, made_pools.pool(12))

    done = called("calibrate", "--pool", pool, "--processes", 0, "--replays", 20, "--out", tmp_path, "--name", "cpu")
    record = ROOT / "docs" / "results" / "rehearsal"
    shown = called("render", record, "--calibration", tmp_path / "cpu.json", "--out", tmp_path / "page")

    assert done.exit_code == 0, done.output
    assert "9 timed and 3 growth rows" in done.output
    assert len(read_calibration(tmp_path / "cpu.json").rates) == 9
    assert "<svg" in (tmp_path / "cpu.html").read_text()
    assert shown.exit_code == 0, shown.output
    assert "Calibration</span>" in (tmp_path / "page" / "scorecard.html").read_text()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "0 processes with values"), (b"nonsense\n", "line 1"), (None, "No such file")],
)
def test_a_pool_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path, content, told):
    path = tmp_path / "pool.jsonl"
    if content is not None:
        path.write_bytes(content)

    done = called("calibrate", "--pool", path, "--processes", 0, "--replays", 5, "--out", tmp_path)

    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_part_is_a_mistake_of_the_user(tmp_path):
    done = called("calibrate", "--part", "speed", "--out", tmp_path)

    assert (done.exit_code, "timed or grown" in done.stderr) == (2, True)


def test_a_pool_that_is_still_too_small_is_not_green(tmp_path):
    done = called("calibrate", "--out", tmp_path, "--seconds", 0, "--replays", 0, "--processes", 5)

    assert done.exit_code == 3
    assert "5 of 5 processes are missing still" in done.stderr


def test_a_forged_calibration_is_not_shown(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b'{"schema":"1.0"}')

    done = called("render", ROOT / "docs" / "results" / "rehearsal", "--calibration", path, "--out", tmp_path)

    assert done.exit_code == 2
    assert "c.json" in done.stderr
