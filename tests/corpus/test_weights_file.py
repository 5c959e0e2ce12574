import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from conformance.corpus.checkpoint import CheckpointInvalid
from conformance.corpus.weights_file import Piece, TensorPlan, read_plans, read_tensors, write_tensors, write_weights


def test_the_official_library_reads_what_was_written(tmp_path):
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([1.5]), "ü": np.zeros((0, 4), "f4")}
    write_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(np.array_equal(loaded[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_pieces_in_any_order_on_threads_give_the_same_bytes(tmp_path):
    values = np.random.default_rng(0).random(1000, dtype=np.float32)
    plans = {"x": TensorPlan("F32", (10, 100)), "y": TensorPlan("F32", (1000,))}

    def pieces(order):
        return [lambda n=n, i=i: Piece(n, i, values[i : i + 50]) for n in plans for i in order]

    write_weights(tmp_path / "a", plans, pieces(range(0, 1000, 50)))
    write_weights(tmp_path / "b", plans, pieces(range(950, -1, -50)), threads=4)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_piece_that_fails_fails_the_file(tmp_path):
    def fail():
        raise RuntimeError("no values")

    with pytest.raises(RuntimeError, match="no values"):
        write_weights(tmp_path / "a", {"x": TensorPlan("F32", (2,))}, [fail])


def test_reading_another_writers_file(tmp_path):
    save_file({"w": np.float16([[1, 2]]), "s": np.array(3, np.float32)}, tmp_path / "f")
    assert read_plans(tmp_path / "f") == {"w": TensorPlan("F16", (1, 2)), "s": TensorPlan("F32", ())}
    read = {name: (dtype, values.tolist()) for name, dtype, values in read_tensors(tmp_path / "f")}
    assert read == {"w": ("F16", [[1, 2]]), "s": ("F32", 3.0)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x03\0\0\0\0\0\0\0{x}",
        (61).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}      ',
        (61).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[-9,27]}}     ',
        (61).to_bytes(8, "little") + b'{"a":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}       ',
    ],
)
def test_broken_file_is_a_typed_error_naming_it(tmp_path, content):
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="broken"):
        list(read_tensors(path))
