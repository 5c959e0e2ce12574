"""How kernels come to a device: each by the launcher that was made for it, whatever else is loaded meanwhile."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import time
from types import SimpleNamespace

import pytest
import torch

loading = pytest.importorskip("reference_engine.kernels.loading", reason="Triton is made for Linux")
NAME = "launcher_of_a_kernel"
SOURCE = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static PyObject *launch(PyObject *self, PyObject *none) { return PyLong_FromLong(NUMBER); }
static PyMethodDef methods[] = {{"launch", launch, METH_NOARGS, ""}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "launcher_of_a_kernel", NULL, -1, methods};
PyMODINIT_FUNC PyInit_launcher_of_a_kernel(void) { return PyModule_Create(&module); }
"""


@pytest.fixture(scope="module")
def extensions(tmp_path_factory):
    """C extensions of one name, each with a number of its own, as Triton makes its launchers."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    built = []
    for number in range(6):
        directory = tmp_path_factory.mktemp(f"launcher{number}")
        source, target = directory / "launcher.c", directory / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
        source.write_text(SOURCE.replace("NUMBER", str(number)))
        include = f"-I{sysconfig.get_paths()['include']}"
        subprocess.run([compiler, source, "-shared", "-fPIC", include, "-o", target], check=True)
        built.append(target)
    return built


class Kernel:
    """A compiled kernel that imports its launcher as Triton does, on a machine that is busy at the wrong moment."""

    def __init__(self, path, *types):
        self.path = path
        self.src = SimpleNamespace(signature=dict(enumerate(types)))
        self.launch = None

    def _init_handles(self):
        spec = importlib.util.spec_from_file_location(NAME, self.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        time.sleep(0.02)
        self.launch = module.launch

    def compile(self):
        return self


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Loads kernels as a model does; the numbers of the launchers that they got."""
    monkeypatch.setattr(loading, "triton", SimpleNamespace(knobs=SimpleNamespace(cache=SimpleNamespace(dir=tmp_path))))
    monkeypatch.setattr(loading, "_imported", set())
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)

    def load(kernels):
        loading.load_all(kernels, torch.device("cuda", 0))
        return [kernel.launch() for kernel in kernels]

    return load


def test_kernels_keep_their_launchers_when_a_second_model_brings_the_same(extensions, loaded):
    for _ in range(3):
        kernels = [Kernel(path, f"*fp{number}") for number, path in enumerate(extensions)]
        assert loaded([*kernels, Kernel(extensions[2], "*fp2")]) == [0, 1, 2, 3, 4, 5, 2]


def test_kernels_keep_their_launchers_after_a_load_that_failed(extensions, loaded):
    def fail():
        raise OSError("no room")

    kernels = [Kernel(path, f"*fp{number}") for number, path in enumerate(extensions)]
    broken = Kernel(extensions[0], "i32")
    broken._init_handles = fail
    with pytest.raises(OSError, match="no room"):
        loaded([*kernels, broken])
    assert loaded(kernels) == [0, 1, 2, 3, 4, 5]


def test_launchers_that_are_new_are_made_at_once_and_others_in_turn():
    kernels = [Kernel(name, *types) for name, *types in (("qkv", "f", "i"), ("attend", "f", "f"), ("out", "f", "i"))]
    new, known = loading.sorted_out(kernels, set())
    assert ([kernel.path for kernel in new], [kernel.path for kernel in known]) == (["qkv", "attend"], ["out"])
    new, known = loading.sorted_out(kernels, {("f", "f")})
    assert ([kernel.path for kernel in new], [kernel.path for kernel in known]) == (["qkv"], ["attend", "out"])


def test_a_process_waits_for_another_that_loads_through_the_same_cache(tmp_path):
    program = """
import sys, time
from pathlib import Path
from reference_engine.kernels.loading import _alone_with
with _alone_with(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(0.2)
    print("out", flush=True)
"""
    with (tmp_path / "told").open("wb") as told:
        both = [
            subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache")], stdout=told) for _ in range(2)
        ]
        assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert (tmp_path / "told").read_text().split() == ["in", "out", "in", "out"]


def test_a_process_that_hangs_keeps_no_other_from_loading(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LONGEST_WAIT_S", 0.3)
    with loading._alone_with(tmp_path):
        began = time.monotonic()
        with loading._alone_with(tmp_path):
            assert 0.3 <= time.monotonic() - began < 5
