"""F-CUDA-017: work is queued without waiting, whoever else wants the processors."""

import os
import subprocess
import sys

import pytest
from control_stands import stand_of

from checks.support.devices import queueing_times

LIMIT_S = 0.2


def median(tmp_path, driver):
    with stand_of(tmp_path, driver, "F-CUDA-017") as stand, stand.opened_device() as device:
        queued, _ = queueing_times(stand, device.handle)
        assert stand.thresholds.limit("F-CUDA-017", "queued_without_waiting").limit == LIMIT_S
    return sorted(queued)[len(queued) // 2]


def test_an_engine_that_queues_is_seen_to_return_at_once(tmp_path):
    assert median(tmp_path, "Healthy") < LIMIT_S


def test_an_engine_that_waits_more_often_than_not_is_seen(tmp_path):
    assert median(tmp_path, "OftenWaitsWhileQueueing") >= LIMIT_S


@pytest.mark.slow
def test_neighbours_that_never_rest_are_not_held_against_it(tmp_path):
    spinning = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(6 * os.cpu_count())
    ]
    try:
        assert median(tmp_path, "Healthy") < LIMIT_S
    finally:
        for each in spinning:
            each.kill()
            each.wait()
