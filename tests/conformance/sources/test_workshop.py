"""Commands of a manifest run to their end or out of time with all they start, and a build is installed apart."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conformance.manifest import load_manifest
from conformance.sources.workshop import NothingExported, Workshop, fresh_environment, run

MANIFEST = """
[engine]
name = "x"
[source]
root = "engine"
include = ["**/*.py", "pyproject.toml"]
[build]
command = ["{python}", "-c", "BUILD", "{out}"]
artefact = "*.whl"
"""
BUILD = "import shutil, sys; shutil.copy('pkg-1-py3-none-any.whl.py', sys.argv[1] + '/pkg-1-py3-none-any.whl')"


def python(code, tmp_path, timeout=20.0):
    return run([sys.executable, "-c", code], tmp_path, timeout)


@pytest.fixture
def workshop(tmp_path):
    """A workshop for an engine with one package; `build` is the command's code."""

    def make(build="pass"):
        (tmp_path / "x.toml").write_text(MANIFEST.replace("BUILD", build))
        for name in ("pkg/a.py", "pkg/b.txt", "build/c.py", "x.egg-info/d.py", ".git/e.py", "pyproject.toml"):
            path = tmp_path / "engine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("value = 1\n")
        (tmp_path / "engine" / "link.py").symlink_to("/etc/hostname")
        return Workshop(load_manifest(str(tmp_path / "x.toml")), tmp_path / "work")

    return make


def test_status_and_both_streams(tmp_path):
    done = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", tmp_path)

    assert (done.ok, done.status, done.stdout, done.stderr) == (False, 3, "out\n", "err\n")
    assert done.told == "exit status 3: out"
    assert done.output == "err\nout\n"


def test_a_silent_success(tmp_path):
    done = python("pass", tmp_path)

    assert (done.ok, done.told) == (True, "exit status 0: ")


def test_a_signal_is_a_negative_status(tmp_path):
    assert python("import os; os.kill(os.getpid(), 11)", tmp_path).status == -11


def test_input_is_empty_and_the_harnesss_python_variables_are_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("KEPT", "yes")

    done = python("import os, sys; print(sys.stdin.read(), os.environ.get('PYTHONPATH'), os.environ['KEPT'])", tmp_path)

    assert done.stdout.split() == ["None", "yes"]


def test_a_flood_is_read_and_only_its_end_is_kept(tmp_path):
    done = python("import os\nfor _ in range(200): os.write(1, b'x' * 65536)\nprint('last')", tmp_path)

    assert done.ok
    assert done.stdout.endswith("xlast\n")
    assert len(done.stdout) <= 64 * 1024


def test_out_of_time_ends_with_all_that_was_started_even_what_detached_itself(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    began = time.monotonic()

    done = python(code, tmp_path, timeout=1.5)

    assert done.status is None
    assert "ran longer than 1.5 s" in done.told
    assert time.monotonic() - began < 15
    assert not psutil.pid_exists(int(done.stdout.split()[0]))


def test_a_child_that_holds_the_output_open_does_not_hold_us(tmp_path):
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('built')\n"
    )
    began = time.monotonic()

    done = python(code, tmp_path)

    assert (done.status, done.stdout) == (0, "built\n")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("command", [["/no/such/program"], ["no-such-program"]])
def test_what_cannot_start_says_so(tmp_path, command):
    done = run(command, tmp_path, 5.0)

    assert done.status is None
    assert "cannot start: " in done.told


def test_exports_only_what_belongs_to_the_engine(workshop):
    copy = workshop().export("copy")

    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()) == [
        "pkg/a.py",
        "pyproject.toml",
    ]


def test_a_second_export_is_fresh(workshop):
    shop = workshop()
    (shop.export("copy") / "left.py").write_text("")

    assert not (shop.export("copy") / "left.py").exists()


def test_nothing_to_export_is_an_error(workshop, tmp_path):
    shop = workshop()
    for path in (tmp_path / "engine").rglob("*.*"):
        if path.is_file():
            path.unlink()

    with pytest.raises(NothingExported, match="matches no file"):
        shop.export("copy")


@pytest.mark.parametrize("build", ["pass", "raise SystemExit(1)"])
def test_a_build_without_an_artefact_is_not_installed(workshop, build):
    shop = workshop(build)

    made = shop.install(shop.manifest.manifest.build)

    assert not made.ok
    assert made.install.told.endswith("the build left no artefact")


def test_an_artefact_that_cannot_be_installed_is_not_ok(workshop):
    shop = workshop("import sys; open(sys.argv[1] + '/pkg-1-py3-none-any.whl', 'w').close()")

    made = shop.install(shop.manifest.manifest.build)

    assert made.build.ok
    assert not made.install.ok
    assert not made.ok


def test_a_fresh_environment_sees_the_runners_packages_and_not_the_project(tmp_path):
    executable, site = fresh_environment(tmp_path / "environment")

    code = "import msgspec, importlib.util as u; print(u.find_spec('conformance'))"
    seen = subprocess.run([executable, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert seen.stdout.strip() == "None"
    assert Path(site).is_dir()
