"""The build of llama.cpp in pieces, on a project of its libraries' names: cut, carried elsewhere, gone on with."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "llama_cpp_cuda.sh"
needed = all(map(shutil.which, ("cmake", "ninja", "cc", "zstd", "readelf", "strip")))
pytestmark = pytest.mark.skipif(not needed, reason="needs cmake, ninja, zstd and a C compiler")
PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(llama C)
add_library(ggml-base SHARED base.c)
add_library(ggml-cpu SHARED cpu.c)
add_library(ggml SHARED ggml.c)
add_library(llama SHARED llama.c slow.c)
set_target_properties(llama PROPERTIES SOVERSION 0 VERSION 0.1)
set_source_files_properties(slow.c PROPERTIES COMPILE_OPTIONS "-wrapper;${CMAKE_SOURCE_DIR}/slowly")
"""
SLOWLY = '#!/bin/sh\nsleep "$(cat "$(dirname "$0")/seconds")"\nexec "$@"\n'


@pytest.fixture
def project(tmp_path):
    """Sources of which one takes as long as the file `seconds` says."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_text(PROJECT)
    for name in ("base", "cpu", "ggml", "llama", "slow"):
        (source / f"{name}.c").write_text(f"int {name}(void) {{ return 1; }}\n")
    (source / "slowly").write_text(SLOWLY)
    (source / "slowly").chmod(0o755)
    (source / "seconds").write_text("30")
    return source


def build(tmp_path, source, out, seconds):
    environment = os.environ | {
        "WITH_CUDA": "OFF", "LLAMA_SOURCES": str(source), "LLAMA_BUILD": str(tmp_path / "build"),
        "LLAMA_INTO": str(tmp_path / "into"), "LLAMA_JOBS": "4",
    }  # fmt: skip
    command = ["bash", str(SCRIPT), str(out), str(seconds)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.slow
def test_a_build_that_is_cut_goes_on_elsewhere_with_what_it_had(tmp_path, project):
    first = build(tmp_path, project, tmp_path / "first", 8)
    assert first.returncode == 9, first.stdout + first.stderr
    assert [path.name for path in (tmp_path / "first" / "lib").iterdir()] == ["objects.tar.zst"]
    shutil.rmtree(tmp_path / "build")
    shutil.copytree(tmp_path / "first" / "lib", tmp_path / "second" / "lib")
    (project / "seconds").write_text("0")
    for path in project.iterdir():
        path.touch()

    second = build(tmp_path, project, tmp_path / "second", 60)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "goes on with 4 objects" in second.stdout
    steps = (tmp_path / "second" / "ninja.log").read_text()
    assert "slow.c.o" in steps
    assert "cpu.c.o" not in steps
    libraries = {"libggml-base.so", "libggml-cpu.so", "libggml.so", "libllama.so.0"}
    assert {path.name for path in (tmp_path / "second" / "lib").iterdir()} == {*libraries, "whole"}
    assert {path.name for path in (tmp_path / "into").iterdir()} == {*libraries, "libllama.so"}

    third = build(tmp_path, tmp_path / "no-sources", tmp_path / "second", 60)
    assert third.returncode == 0
    assert "built before: llama ggml" in third.stdout


@pytest.mark.slow
def test_a_build_that_fails_is_told_and_is_none_that_was_cut(tmp_path, project):
    (project / "seconds").write_text("0")
    (project / "cpu.c").write_text("this is no C\n")

    done = build(tmp_path, project, tmp_path / "out", 60)

    assert done.returncode == 1, done.stdout
    assert "cpu.c" in done.stdout
    assert not list((tmp_path / "out" / "lib").iterdir())
