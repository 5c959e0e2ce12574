"""The contract with a pipeline: each of the five exit codes, by `falsify run` itself and through nox."""

import os
import subprocess
import sys

import pytest
from trial_support import ROOT, TIMEOUT_S, environment, falsify, record_in, write_manifest

from conformance.verdicts import ExitCode

LAUNCHER = "#!/bin/sh\nexec {python} -c '{broken}from conformance.cli import main; main()' \"$@\"\n"
UNUSABLE = (
    "import conformance.probes.nvml as nvml, pathlib, functools;"
    "import conformance.trial.runner as runner;"
    'runner.gpus = functools.partial(nvml.gpus, pathlib.Path("{dev}"));'
)


def asked(code, directory):
    """Arguments that make a trial end with this code."""
    ways = {
        ExitCode.OPEN: (write_manifest(directory, "honest"), "-k", "F-CUDA-013"),
        ExitCode.FALSIFIED: (write_manifest(directory, "segfaults"), "-k", "F-QUAL-068"),
        ExitCode.USAGE: (write_manifest(directory, "honest"), "-k", "no_such_row"),
        ExitCode.UNDECIDED: (write_manifest(directory, "offers_less"), "-k", "F-QUAL-068"),
        ExitCode.HARNESS: (write_manifest(directory, "honest"), "-k", "F-CUDA-013"),
    }
    return ["-n", "1", "--out", str(directory / "out"), "--engine", *map(str, ways[code])]


def launcher(directory, code):
    """A directory with a `falsify` as an installation leaves it; for code 4 the machine has an unusable device."""
    dev = directory / "dev"
    dev.mkdir()
    (dev / "nvidia0").touch()
    place = directory / "bin"
    place.mkdir()
    broken = UNUSABLE.format(dev=dev) if code is ExitCode.HARNESS else ""
    (place / "falsify").write_text(LAUNCHER.format(python=sys.executable, broken=broken))
    (place / "falsify").chmod(0o755)
    return place


@pytest.mark.parametrize("code", list(ExitCode))
def test_nox_ends_with_the_trials_own_code(tmp_path, code):
    place = launcher(tmp_path, code)
    nox = [sys.executable, "-m", "nox", "--no-venv", "-f", str(ROOT / "noxfile.py"), "-s", "falsify", "--"]

    done = subprocess.run(
        [*nox, *asked(code, tmp_path)],
        env=environment(PATH=f"{place}{os.pathsep}{os.environ['PATH']}"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == code, done.stdout + done.stderr
    if code in {ExitCode.OPEN, ExitCode.FALSIFIED, ExitCode.UNDECIDED}:
        assert record_in(tmp_path / "out").footer.exit_code == code


@pytest.mark.parametrize("code", [each for each in ExitCode if each is not ExitCode.HARNESS])
def test_falsify_run_ends_with_its_code(tmp_path, code):
    done = falsify(*asked(code, tmp_path))

    assert done.returncode == code, done.stdout + done.stderr
    assert code is ExitCode.USAGE or record_in(tmp_path / "out").footer.exit_code == code


def test_a_device_that_is_visible_but_unusable_is_the_harnesss_error_in_one_line(tmp_path):
    done = subprocess.run(
        [launcher(tmp_path, ExitCode.HARNESS) / "falsify", "run", *asked(ExitCode.HARNESS, tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == ExitCode.HARNESS
    assert done.stderr.startswith("falsify: an NVIDIA device is visible but unusable: nvidia0 present")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-k", "f_men"], "'f_men' matches no row"),
        (["--section", "memory"], "'memory' matches no row"),
        (["--engine", "no-such-engine"], "no engine 'no-such-engine'"),
        (["--model", "/no/such/checkpoint"], "no such name"),
        (["--seed", "one"], "--seed 'one': a whole number"),
        (["--seed", "9" * 30], "--seed"),
        (["--profile", "short"], "--profile 'short': default or long"),
        (["--require-gpu"], "--require-gpu: no NVIDIA device"),
        (["--rehearse", "--require-gpu"], "--rehearse and --require-gpu exclude each other"),
        (["--out", "/proc/no-place"], "/proc/no-place"),
        (["--out", "/dev/null"], "/dev/null"),
        (["--out", "/dev/full/x"], "/dev/full/x"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_two(capsys, monkeypatch, tmp_path, arguments, said):
    from conformance.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["falsify", "run", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    error = capsys.readouterr().err
    assert ended.value.code == ExitCode.USAGE
    assert said in error
    assert error.startswith("falsify: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("not toml", "Expected '='"),
        ('[engine]\nname = "x"\n', "no [driver] table: nothing to start"),
        ('[engine]\nname = "x"\nspeed = 1\n', "unknown field `speed`"),
        ('[engine]\nname = "x"\nprecision = "fp8"\n', "precision"),
        ('[engine]\nname = "x"\n[driver]\ncommand = []\n', "command"),
        ('[engine]\nname = "x"\n[driver]\ncommand = ["x"]\nstartup_timeout_s = inf\n', "startup_timeout_s"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named_with_its_field(capsys, monkeypatch, tmp_path, toml, said):
    from conformance.cli import main

    (tmp_path / "broken.toml").write_text(toml)
    monkeypatch.setattr(
        sys, "argv", ["falsify", "run", "--engine", str(tmp_path / "broken.toml"), "--out", str(tmp_path / "out")]
    )

    with pytest.raises(SystemExit) as ended:
        main()

    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (ExitCode.USAGE, 1)
    assert "broken.toml" in error
    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["prepare", "write_reports"])
def test_an_error_of_ours_never_ends_as_falsified(capsys, monkeypatch, tmp_path, place):
    from conformance.cli import main

    def broken(*_):
        raise RuntimeError("a bug")

    module = {"prepare": "conformance.trial.runner", "write_reports": "reports.written"}[place]
    monkeypatch.setattr(f"{module}.{place}", broken)
    monkeypatch.setattr(sys, "argv", ["falsify", "run", *asked(ExitCode.OPEN, tmp_path)])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == ExitCode.HARNESS
    assert capsys.readouterr().err.endswith("falsify: the harness failed: RuntimeError: a bug\n")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module\n", "cannot be collected: E   ModuleNotFoundError"),
        ("import os, signal\nos.kill(os.getppid(), 0)\nraise KeyError('x')\n", "cannot be collected"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_checks_that_cannot_be_imported_are_the_harnesss_error(trial, tmp_path, checks, source, reason, workers):
    checks(f"{source}\n\ndef test_f_cuda_013(stand): ...\n")

    finished = trial(write_manifest(tmp_path), "F-CUDA-013", workers=workers)

    row = next(row for row in finished.record.rows if row.id == "F-CUDA-013")
    assert finished.record.footer.ended == "broken"
    assert finished.record.footer.exit_code is ExitCode.HARNESS
    assert row.verdict == "ERROR"
    assert reason in row.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('a bug')", "RuntimeError: a bug"),
        ("import pytest; pytest.skip('not today')", "the check left no result"),
        ("raise SystemExit(0)", "the check left no result"),
        ("stand.equal('x', expected=object(), observed=1)", "TypeError"),
        ("stand.equal('non_empty', expected='\\ud800', observed='\\ud800')", "did not observe"),
        ("pass", "did not observe"),
        ("import os; os._exit(3)", "the check left no result, worker failed"),
    ],
)
def test_a_check_that_ends_in_any_other_way_is_an_error_and_never_green(trial, tmp_path, checks, body, reason):
    other = "def test_f_cuda_014(stand):\n    stand.missing('positive', 'x')\n"
    checks(f"def test_f_cuda_013(stand):\n    {body}\n\n\n{other}")

    finished = trial(write_manifest(tmp_path), "F-CUDA-013", "F-CUDA-014", workers=2 if "_exit" in body else 1)

    rows = {row.id: row for row in finished.record.rows}
    assert rows["F-CUDA-013"].verdict == "ERROR"
    assert reason in rows["F-CUDA-013"].reason
    assert rows["F-CUDA-014"].verdict == "UNTESTED"
    assert finished.record.footer.exit_code is ExitCode.HARNESS


def test_one_check_that_reports_twice_breaks_the_trial(trial, tmp_path, checks):
    checks(
        "import pytest\n\n\n@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_f_cuda_013(stand, x):\n    stand.missing('non_empty', 'x')\n"
    )

    finished = trial(write_manifest(tmp_path), "F-CUDA-013")

    assert finished.record.footer.ended == "broken"
    assert finished.record.footer.exit_code is ExitCode.HARNESS


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """Puts other checks in the place of ours; rows without one count as not written."""
    place = tmp_path / "checks"
    place.mkdir()

    def write(source):
        from conformance.trial.inventory import Place

        (place / f"test_of_{tmp_path.name}.py").write_text(source)
        found = {f"F-CUDA-{number}": Place("x", 1) for number in ("013", "014") if f"test_f_cuda_{number}" in source}
        monkeypatch.setattr("conformance.trial.runner.CHECKS_DIRECTORY", place)
        monkeypatch.setattr("conformance.trial.runner.inventory", lambda _: found)

    return write
