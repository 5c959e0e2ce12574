"""The terminal: readable anywhere, no escape sequence in a pipe, and no trial ends because nobody reads."""

import io
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import sample_records as samples

from conformance.record import Record, RowResult
from conformance.verdicts import Verdict
from reports.progress import LiveProgress, PlainProgress, open_progress
from reports.terminal import make_console, print_summary, showable

ROOT = Path(__file__).parents[2]
SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from conformance.catalogue import load_catalogue
    from conformance.record import read_record
    from reports.progress import open_progress

    record = read_record(Path(sys.argv[1]))
    with open_progress(load_catalogue(), 100) as progress:
        for row in record.rows:
            progress.row_started(row.id)
            progress.row_finished(row)
        progress.finish(record, Path("runs/scorecard.html"))
    raise SystemExit(7)
    """
)


@pytest.fixture(scope="module")
def record_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("trial") / "record.jsonl"
    path.write_bytes(samples.encode_record(samples.mixed_record()))
    return path


def command(record_file: Path, **environment: str) -> dict[str, object]:
    names = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **environment}
    return {"args": [sys.executable, "-W", "error", "-c", SCRIPT, str(record_file)], "env": names}


def summary_of(record: Record, width: int = 100) -> str:
    stream = io.StringIO()
    print_summary(record, samples.CATALOGUE, make_console(stream, width), Path("runs/scorecard.html"))
    return stream.getvalue()


def test_the_summary_ends_with_verdict_gate_and_scorecard():
    lines = summary_of(samples.mixed_record()).splitlines()

    assert lines[-5] == "Falsified: 7 of 100 tests violated their criterion."
    assert lines[-2:] == ["Gate: shut, exit code 1 (falsified)", "Scorecard: runs/scorecard.html"]


def test_each_failure_has_its_one_command():
    text = summary_of(samples.mixed_record())
    for row in samples.mixed_record().rows:
        expected = 1 if row.verdict is Verdict.FALSIFIED else 0
        assert text.count(f"--seed {row.seed} {row.id}\n") == expected


def test_a_rehearsal_says_that_nothing_was_shown_about_the_gpu():
    assert "REHEARSAL on the CPU: nothing was shown about the GPU." in summary_of(samples.rehearsal_record())


def test_a_row_of_a_failed_rehearsal_stands_among_the_failures():
    assert "F-MEM-029 failed in rehearsal on the CPU" in summary_of(samples.rehearsal_record(failing=True))


def test_hostile_text_cannot_format_colour_or_command():
    row = RowResult("F-BUILD-001", Verdict.FALSIFIED, reason="::error::x [red]y[/red] :smile: \x1b]0;title\x07")
    record = samples.survived_record()

    text = summary_of(samples.finished(record.header, [row, *record.rows[1:]]))

    assert "  \\::error::x [red]y[/red] :smile: \\x1b]0;title\\x07" in text
    assert "\x1b" not in text


def test_a_missing_stream_is_no_trouble():
    stream = io.StringIO()
    console = make_console(stream)
    stream.close()

    print_summary(samples.mixed_record(), samples.CATALOGUE, console)


def test_an_ascii_terminal_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    print_summary(samples.mixed_record(), samples.CATALOGUE, make_console(stream))
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")

    assert "x F-MEM-029 FALSIFIED" in text
    assert showable("naïve", make_console(stream)) == "na\\xefve"


def test_a_pipe_gets_one_plain_line_a_row(record_file):
    done = subprocess.run(**command(record_file), capture_output=True, check=False, timeout=60)
    lines = done.stdout.decode().splitlines()

    assert done.returncode == 7
    assert done.stderr == b""
    assert b"\x1b" not in done.stdout
    assert [line[:9] for line in lines[:100]] == [f"[{n:>3}/100]" for n in range(1, 101)]


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}]
)
def test_odd_surroundings_are_no_trouble(record_file, environment):
    done = subprocess.run(**command(record_file, **environment), capture_output=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (7, b"")


def test_a_reader_who_leaves_does_not_end_the_trial(record_file):
    with subprocess.Popen(**command(record_file), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 7

    assert errors == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_does_not_end_the_trial(record_file):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(**command(record_file), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (7, b"")


def test_a_terminal_gets_a_live_view_and_its_cursor_back(record_file):
    leader, follower = pty.openpty()
    with subprocess.Popen(**command(record_file, TERM="xterm-256color", COLUMNS="60"), stdout=follower) as process:
        os.close(follower)
        output = b""
        while chunk := _read(leader):
            output += chunk
        assert process.wait(timeout=60) == 7
    os.close(leader)

    assert output.count(b"\x1b[?25l") == output.count(b"\x1b[?25h") >= 1
    assert b"Falsified: 7 of 100" in output
    assert b"\x1b[31mred" not in output


def test_a_terminal_that_goes_away_does_not_end_the_trial(record_file):
    leader, follower = pty.openpty()
    with subprocess.Popen(
        **command(record_file, TERM="xterm-256color"), stdout=follower, stderr=subprocess.PIPE
    ) as process:
        os.close(follower)
        os.read(leader, 1)
        os.close(leader)
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 7

    assert errors == b""


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        return b""


def test_the_kind_of_progress_follows_the_stream():
    assert isinstance(open_progress(samples.CATALOGUE, 1, make_console(io.StringIO())), PlainProgress)


def test_the_live_view_shows_what_runs_and_what_was_found():
    stream = io.StringIO()
    console = make_console(stream, 80)
    progress = LiveProgress(samples.CATALOGUE, 3, console, clock=iter(range(100)).__next__)
    progress.row_started("F-MEM-029")
    progress.row_started("F-MEM-030")
    progress.row_finished(RowResult("F-MEM-029", Verdict.FALSIFIED, reason="rate: too slow"))

    console.print(progress._view())

    text = stream.getvalue()
    assert "1/3" in text
    assert "✗ 1" in text
    assert "F-MEM-030 (" in text
    assert "F-MEM-029" not in text.split("1/3")[1]
    assert "FALSIFIED F-MEM-029 (0 s) rate: too slow" in text
