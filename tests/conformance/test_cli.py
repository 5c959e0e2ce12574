"""The command line teaches, starts without the heavy libraries, and tells errors in one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.verdicts import ExitCode

ROOT = Path(__file__).parents[2]
DRIVERS = ROOT / "tests" / "drivers"
HEAVY = ("torch", "numpy", "scipy", "hypothesis", "pytest", "matplotlib", "pandas", "jinja2", "psutil", "gguf")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["smoke", "--help"], []])
def test_help_is_answered_without_any_heavy_library(arguments):
    code = (
        "import sys, conformance.cli as cli\n"
        f"sys.argv = ['falsify', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "HEAVY []" in done.stdout
    assert "Usage" in done.stdout + done.stderr


def test_help_teaches():
    told = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output

    for word in ("--engine", "--section", "--require-gpu", "rehearsal", "Examples", "falsify run -k f_mem"):
        assert word in told
    assert "0 gate open, 1 falsified, 2 usage, 3 undecided" in CliRunner().invoke(app, ["--help"]).output.replace(
        "\n", " "
    )


def test_the_shipped_engines_are_listed():
    done = CliRunner().invoke(app, ["engines"])

    assert done.exit_code == ExitCode.OPEN
    assert "\nreference\t" in f"\n{done.output}"


@pytest.mark.slow
def test_goldens_of_a_checkpoint_can_be_made_and_tried(tmp_path):
    from conformance.corpus.goldens import load_goldens
    from conformance.corpus.models import RANDOM, resolve_model

    checkpoint = tmp_path / "mine"
    shutil.copytree(RANDOM, checkpoint, ignore=shutil.ignore_patterns("goldens.*"))
    assert resolve_model(str(checkpoint)).goldens_directory is None

    done = CliRunner().invoke(app, ["golden", str(checkpoint)])

    assert done.exit_code == ExitCode.OPEN, done.output
    found = resolve_model(str(checkpoint))
    assert found.goldens_directory is not None
    load_goldens(found.goldens_directory).require(found.sha256)


def test_goldens_of_nothing_or_in_no_dtype_are_usage(tmp_path):
    from conformance.corpus.models import RANDOM

    assert CliRunner().invoke(app, ["golden", str(tmp_path / "absent")]).exit_code == ExitCode.USAGE
    assert CliRunner().invoke(app, ["golden", str(RANDOM), "--dtype", "F8"]).exit_code == ExitCode.USAGE


def test_an_option_that_does_not_exist_is_usage():
    assert CliRunner().invoke(app, ["run", "--no-such-option"]).exit_code == ExitCode.USAGE
    assert CliRunner().invoke(app, ["run", "-n", "0"]).exit_code == ExitCode.USAGE


@pytest.mark.parametrize(("driver", "code"), [("good.py", ExitCode.OPEN), ("absent.py", ExitCode.FALSIFIED)])
def test_smoke_says_what_is_wrong_with_an_adapter(tmp_path, driver, code):
    manifest = tmp_path / "engine.toml"
    manifest.write_text(f'[engine]\nname = "good"\n[driver]\ncommand = ["{{python}}", "{DRIVERS / driver}"]\n')

    done = CliRunner().invoke(app, ["smoke", "--engine", str(manifest)])

    assert done.exit_code == code
    assert ("FAIL" in done.output) == (code is ExitCode.FALSIFIED)


def test_a_random_seed_is_drawn_and_a_number_is_taken():
    from conformance.cli import _seed

    assert _seed("17") == 17
    assert len({_seed("random") for _ in range(8)}) > 1


def test_a_reader_who_has_gone_away_does_not_change_the_code():
    shell = f"{sys.executable} -m conformance run -k nothing 2>&1 >/dev/null | true; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, check=False)

    assert done.returncode == ExitCode.USAGE


def test_an_operating_systems_error_without_a_path_is_ours(monkeypatch, capsys):
    from conformance import cli

    def broken(_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("conformance.trial.runner.prepare", broken)
    monkeypatch.setattr(sys, "argv", ["falsify", "run"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == ExitCode.HARNESS
    assert "Too many open files" in capsys.readouterr().err.splitlines()[-1]


def test_a_hole_in_the_catalogue_is_the_harnesss_error(monkeypatch, capsys, tmp_path):
    from conformance import cli
    from conformance.trial.inventory import CatalogueMismatch

    def mismatch(_):
        raise CatalogueMismatch(["test_x has no row"])

    monkeypatch.setattr("conformance.trial.runner.inventory", mismatch)
    monkeypatch.setattr(sys, "argv", ["falsify", "run", "--out", str(tmp_path / "out")])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == ExitCode.HARNESS
    assert capsys.readouterr().err == "falsify: checks and catalogue disagree: test_x has no row\n"
