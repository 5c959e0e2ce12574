"""The witness of copies: what it builds and writes, how its lines are read, and which copies it tells apart."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.probes import copies
from conformance.probes.copies import (
    Trace,
    WitnessUnavailable,
    asynchronous_share,
    awaited_share,
    parse_trace,
    pinned_share,
    read_trace,
)

FAKE = Path(__file__).with_name("fake_cupti.c")


def copy(number, start, end, *, source=2, asynchronous=1, nbytes=1000, kind=1):
    return f"copy {number} {kind} {source} 3 {asynchronous} {nbytes} {start} {end} 7"


def call(number, start, end, name="cudaMemcpyAsync_v3020"):
    return f"call {number} {start} {end} 99 {name}"


def wait(start, end, name="cudaStreamSynchronize_v3020"):
    return call(900 + start, start, end, name)


QUEUED = [call(n, 10 * n, 10 * n + 1) for n in range(1, 5)]
COPIED = [copy(n, 10 * n + 2, 10 * n + 8) for n in range(1, 5)]


def test_asynchronous_pinned_copies_without_a_wait_are_what_they_should_be():
    trace = parse_trace(["ready", *QUEUED, *COPIED])

    assert trace.complete
    assert (asynchronous_share(trace), pinned_share(trace), awaited_share(trace)) == (1.0, 1.0, 0.0)


def test_an_asynchronous_call_from_pageable_memory_is_not_taken_for_pinned():
    trace = parse_trace([*QUEUED, *COPIED[1:], copy(1, 12, 18, source=1)])

    assert (asynchronous_share(trace), pinned_share(trace)) == (1.0, 0.75)


@pytest.mark.parametrize("name", ["cudaMemcpy_v3020", "cuMemcpyHtoD_v2"])
def test_a_synchronous_call_is_seen_by_its_name_even_if_the_flag_says_otherwise(name):
    trace = parse_trace([call(1, 10, 11, name), *QUEUED[1:], *COPIED])

    assert asynchronous_share(trace) == 0.75


def test_a_copy_that_the_flag_calls_synchronous_is_one_whatever_it_is_called():
    assert asynchronous_share(parse_trace([*QUEUED, copy(1, 12, 18, asynchronous=0), *COPIED[1:]])) == 0.75


def test_a_wait_after_each_copy_is_seen_and_the_last_one_may_be_waited_for():
    waits = [wait(10 * n + 3, 10 * n + 9) for n in range(1, 5)]

    assert awaited_share(parse_trace([*QUEUED, *COPIED, *waits])) == 1.0
    assert awaited_share(parse_trace([*QUEUED, *COPIED, waits[-1]])) == 0.0


def test_waiting_for_an_earlier_copy_to_reuse_its_buffer_is_no_wait_for_this_one():
    slow = [copy(n, 10 * n + 2, 10 * n + 12) for n in range(1, 5)]
    ring = [wait(10 * n + 3, 10 * n + 5, "cudaEventSynchronize_v3020") for n in range(1, 5)]

    assert awaited_share(parse_trace([*QUEUED, *slow, *ring])) == 0.0


def test_a_span_of_time_and_a_direction_are_cut_out():
    trace = parse_trace([*QUEUED, *COPIED, copy(50, 22, 24, kind=2)])

    part = trace.between(20, 30)

    assert [each.correlation for each in part.copies] == [2, 50]
    assert [each.correlation for each in part.to_device().copies] == [2]
    assert [each.correlation for each in part.calls] == [2]


def test_no_copies_have_no_share_and_so_meet_no_demand():
    assert asynchronous_share(Trace((), (), complete=True)) == pinned_share(Trace((), (), complete=True)) == 0.0


@pytest.mark.parametrize("line", ["lost 3", "full", "copy 1 2", "call x y z w v", "call 1 2", "copy a b c d e f g h i"])
def test_lost_records_and_lines_that_are_none_make_a_trace_incomplete(line):
    assert not parse_trace(["ready", line, *QUEUED]).complete


def test_a_process_that_never_loaded_the_witness_or_was_refused_is_told(tmp_path):
    with pytest.raises(WitnessUnavailable, match="did not initialise CUDA"):
        read_trace(tmp_path / "absent.txt")
    (tmp_path / "refused.txt").write_text("failed\n")
    with pytest.raises(WitnessUnavailable, match="refused"):
        read_trace(tmp_path / "refused.txt")


def test_without_a_compiler_or_cupti_there_is_no_witness(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WitnessUnavailable, match="nvcc is not on PATH"):
        copies.build(tmp_path)
    (tmp_path / "nvcc").write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    (tmp_path / "nvcc").chmod(0o755)
    with pytest.raises(WitnessUnavailable, match="in no CUDA toolkit"):
        copies.build(tmp_path, [tmp_path])
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cupti.h").touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libcupti.so.13").touch()
    with pytest.raises(WitnessUnavailable, match="no such option"):
        copies.build(tmp_path, [tmp_path])
    (tmp_path / "nvcc").write_bytes(b"\0not a program")
    with pytest.raises(WitnessUnavailable, match="did not run"):
        copies.build(tmp_path, [tmp_path])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The real library, linked against a CUPTI that makes its records up."""
    directory = tmp_path_factory.mktemp("cupti")
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("nvcc is not installed")
    try:
        include, _ = copies._find_cupti(copies.toolkit_roots(Path(compiler)))
    except WitnessUnavailable as absent:
        pytest.skip(str(absent))
    (directory / "lib").mkdir()
    (directory / "include").symlink_to(include)
    shared = ["-shared", "-cudart", "none", "-Xcompiler", "-fPIC", f"-I{include}", str(FAKE)]
    subprocess.run([compiler, *shared, "-o", str(directory / "lib" / "libcupti.so")], check=True, capture_output=True)
    return copies.build(directory, [directory])


def load(library, output, **env):
    """A process that the CUDA driver would have given the library to."""
    code = f"import ctypes; ctypes.CDLL({str(library)!r}).InitializeInjection()"
    given = os.environ | {copies.OUTPUT_VARIABLE: str(output)} | env
    subprocess.run([sys.executable, "-c", code], env=given, check=True, timeout=60)


def test_the_library_writes_copies_and_the_calls_that_matter_in_the_clock_of_the_harness(library, tmp_path):
    output, began = tmp_path / "copies.txt", time.monotonic_ns()
    load(library, output)

    trace = read_trace(output)

    assert trace.complete
    (seen,) = trace.copies
    assert (seen.nbytes, seen.source, seen.kind, seen.asynchronous) == (4096, 2, 1, True)
    assert began < seen.start < time.monotonic_ns()
    assert [each.name for each in trace.calls] == ["cudaMemcpyAsync_v3020", "cudaStreamSynchronize_v3020"]
    assert [each.waits for each in trace.calls] == [False, True]


def test_the_library_stops_at_its_limit_and_says_so(library, tmp_path):
    load(library, tmp_path / "copies.txt", FAKE_COPIES="250000")

    assert (tmp_path / "copies.txt").stat().st_size <= 32 * 1024 * 1024 + 8
    assert not read_trace(tmp_path / "copies.txt").complete


def test_lost_records_and_a_refusal_are_told(library, tmp_path):
    load(library, tmp_path / "lost.txt", FAKE_LOSES="1")
    load(library, tmp_path / "refused.txt", FAKE_REFUSES="1")

    assert not read_trace(tmp_path / "lost.txt").complete
    with pytest.raises(WitnessUnavailable, match="refused"):
        read_trace(tmp_path / "refused.txt")
