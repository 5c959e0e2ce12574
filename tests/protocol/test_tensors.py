import sys

import numpy as np
import pytest

from conformance.protocol import messages as m
from conformance.protocol.client import Engine, Launch
from conformance.protocol.tensors import BrokenTensor, read_tensor, to_numpy


def logits(good, tmp_path, lie):
    """What the harness makes of the logits of a driver that lies in this way."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    command = [sys.executable, good.command[1].replace("good.py", "lying.py"), lie]
    with Engine(Launch(command, good.env, run_dir, run_dir, startup_timeout=20)) as engine:
        data = engine.call("model.logits", m.Logits(1, [1, 2]))
        return to_numpy(data, read_tensor(run_dir, data))


@pytest.mark.parametrize("lie", ["nothing", "relative_path"])
def test_a_true_tensor_arrives(good, tmp_path, lie):
    np.testing.assert_array_equal(logits(good, tmp_path, lie), np.arange(6, dtype="<f4").reshape(2, 3))


def test_not_a_number_arrives_as_it_is_for_the_judge_to_see(good, tmp_path):
    assert np.isnan(logits(good, tmp_path, "not_a_number")).sum() == 1


@pytest.mark.parametrize(
    "lie",
    [
        "hash_of_something_else",
        "changed_after_hashing",
        "cut_short",
        "longer_than_stated",
        "negative_length",
        "immense_length",
        "missing",
        "elsewhere",
        "climbing",
        "link",
        "link_within",
        "link_to_itself",
        "pipe",
        "directory",
        "nul_in_path",
        "endless_path",
        "unencodable_path",
        "other_shape",
        "negative_shape",
        "other_dtype",
        "unknown_dtype",
    ],
)
def test_whatever_is_not_as_the_message_says_is_broken(good, tmp_path, lie):
    with pytest.raises(BrokenTensor) as caught:
        logits(good, tmp_path, lie)
    assert caught.value.cause
