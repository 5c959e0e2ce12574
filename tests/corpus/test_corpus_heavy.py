import pytest
from corpus_engine import InProcess
from corpus_parsers import Strict
from safetensors import SafetensorError, safe_open

from conformance.corpus.safetensors.builder import NOT_TOLD, Contents, TensorContents
from conformance.corpus.safetensors.findings import How, judge_file
from conformance.corpus.safetensors.heavy import HEAVY
from conformance.corpus.safetensors.oracle import first_difference
from conformance.corpus.safetensors.probe import Prober
from conformance.corpus.safetensors.rules import Demand

BY_NAME = {heavy.name: heavy for heavy in HEAVY}
SMALL = ("heavy.many_tensors", "heavy.header_30mb")


@pytest.mark.slow
@pytest.mark.parametrize("heavy", HEAVY, ids=lambda heavy: heavy.name)
def test_heavy_file_has_the_contents_it_tells(heavy, tmp_path):
    path = tmp_path / "heavy.safetensors"
    expected = heavy.write(path)
    status = path.stat()
    assert abs(status.st_size - heavy.file_bytes) < 1_000_000
    assert status.st_blocks * 512 <= heavy.disk_bytes + 1_000_000
    if heavy.demand is Demand.REJECT:
        with pytest.raises(SafetensorError):
            safe_open(path, framework="numpy")
        return
    with safe_open(path, framework="numpy") as handle:
        found = {
            name: TensorContents(
                handle.get_slice(name).get_dtype(),
                tuple(handle.get_slice(name).get_shape()),
                NOT_TOLD,
                handle.get_tensor(name).tobytes(),
            )
            for name in expected.tensors
        }
    assert first_difference(expected, Contents(found)) == ""


@pytest.mark.parametrize("name", SMALL)
def test_strict_parser_reads_a_heavy_file(name, tmp_path):
    heavy = BY_NAME[name]
    path = tmp_path / "heavy.safetensors"
    expected = heavy.write(path)
    outcome = Prober(InProcess(Strict(), tmp_path), tmp_path).try_file(path, only=expected.tensors)
    assert judge_file(heavy.demand, (expected,), outcome) is None


def test_shifted_reading_of_a_heavy_file_is_a_misread(tmp_path):
    class Off(Strict):
        def read(self, buffer, entry):
            return buffer[entry[2] - 4 : entry[3] - 4].rjust(4, b"\0")

    path = tmp_path / "heavy.safetensors"
    expected = BY_NAME["heavy.many_tensors"].write(path)
    outcome = Prober(InProcess(Off(), tmp_path), tmp_path).try_file(path, only=expected.tensors)
    assert judge_file(Demand.ACCEPT, (expected,), outcome).how is How.MISREAD
