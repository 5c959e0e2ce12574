"""memcheck's lists: read, compared, and nothing of the checked program left behind. The tool itself is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memcheck.py"
TOOL = """#!/bin/sh
echo "stage    0.1 s: begun"
case "$*" in *model.generate*) extra="{generation}";; *) extra="";; esac
echo "========= COMPUTE-SANITIZER"
eval "$extra"
echo "========= Leaked 512 bytes at 0x7f00"
echo "=========     Host Frame: cuMemAlloc_v2 [0x1] in libcuda.so"
echo "========= ERROR SUMMARY: {errors} errors"
"""


@pytest.fixture
def checked(tmp_path):
    """Runs the script with a tool that says so and does so."""

    def run(generation=":", errors=1):
        bin_directory = tmp_path / "bin"
        bin_directory.mkdir(exist_ok=True)
        tool = bin_directory / "compute-sanitizer"
        tool.write_text(TOOL.format(generation=generation, errors=errors))
        tool.chmod(0o755)
        environment = os.environ | {"PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, str(SCRIPT), str(tmp_path / "found"), "--seconds", "3"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_what_the_empty_program_leaks_too_is_no_finding(checked, tmp_path):
    done = checked()
    assert done.returncode == 0, done.stderr
    assert "beyond an empty program: 0" in done.stdout
    # It ran without the tool, too, as far as a machine without a GPU lets it.
    assert "stage" in (tmp_path / "found" / "untooled.txt").read_text()
    assert not (tmp_path / "found" / "torch.txt").exists()


def test_an_error_and_a_leak_of_its_own_are_findings(checked):
    done = checked(
        "echo '========= Leaked 64 bytes at 0x1'; echo '=========     Host Frame: ours [0x2] in x.so'", errors=2
    )
    assert done.returncode == 1
    assert "beyond an empty program: 1" in done.stdout
    assert "1 x 64 bytes: ours" in done.stdout


def test_a_tool_that_ends_without_a_summary_says_how_and_leaves_nothing_running(checked, tmp_path):
    done = checked("sleep 981 & exit 3")
    assert done.returncode == 1
    assert "generation: no summary; its last line: ========= exit status 3" in done.stdout
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "981"]]
    assert "exit status 3" in (tmp_path / "found" / "generation.txt").read_text()
    assert "generation: its last stage: 0.1 s: begun" in done.stdout
    assert (tmp_path / "found" / "torch.txt").is_file()


def test_a_tool_that_hangs_is_cut(checked):
    done = checked("exec sleep 982")
    assert done.returncode == 1
    assert "cut after 3 s" in done.stdout


def test_a_program_that_hangs_tells_its_stage_and_where_its_threads_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    import memcheck

    hangs = memcheck.BEGIN.replace("import torch", "") + "def stuck():\n    time.sleep(60)\nstuck()\n"
    text = memcheck.run(hangs, tmp_path / "hangs.txt", 3.0, tmp_path, tool=False)

    assert memcheck.STAGE.findall(text)[-1].endswith("torch imported")
    assert "in stuck" in text
    assert "Timeout (0:00:01.5" in text
    assert text.splitlines()[-1] == "========= cut after 3 s"
