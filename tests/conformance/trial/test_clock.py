"""The wall clock jumps in the middle of a trial: what was measured, and every verdict, stays what it was."""

import shutil
import subprocess

import pytest
from trial_support import TIMEOUT_S, command, environment, record_in, write_manifest

from conformance.verdicts import ExitCode

ROWS = ("-k", "F-CUDA-013", "-k", "F-QUAL-068")
DAY_S = 86400
SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
static long calls;
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME && calls++ % 2) now->tv_sec += atol(getenv("CLOCK_JUMP"));
    return failed;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that makes every second look at the wall clock jump by `CLOCK_JUMP` seconds."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    place = tmp_path_factory.mktemp("clock")
    (place / "clock.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", place / "clock.so", place / "clock.c", "-ldl"], check=True)
    return place / "clock.so"


def tried(tmp_path, name, **variables):
    words = command(*ROWS, "--engine", write_manifest(tmp_path, "wrong_ids"), "--out", tmp_path / name, "-n", 2)
    done = subprocess.run(
        words, env=environment(**variables), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == ExitCode.FALSIFIED, done.stderr
    return record_in(tmp_path / name)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    """The trial on a clock that goes as it should."""
    return tried(tmp_path_factory.mktemp("steady"), "steady")


@pytest.mark.slow
@pytest.mark.parametrize("jump", [-400 * DAY_S, 400 * DAY_S])
def test_a_clock_that_jumps_a_year_to_and_fro_changes_no_verdict_and_no_duration(tmp_path, shim, steady, jump):
    jumpy = tried(tmp_path, "jumpy", LD_PRELOAD=str(shim), CLOCK_JUMP=str(jump))
    years = {steady.header.started[:4], steady.footer.finished[:4], jumpy.header.started[:4], jumpy.footer.finished[:4]}
    assert len(years) > 1, "the clock did not jump"
    assert [(row.id, row.verdict, row.reason) for row in jumpy.rows] == [
        (row.id, row.verdict, row.reason) for row in steady.rows
    ]
    assert 0 < jumpy.footer.duration_s < TIMEOUT_S
    assert all(0 <= row.duration_s < TIMEOUT_S for row in jumpy.rows)
