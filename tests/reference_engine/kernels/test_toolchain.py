"""Where Triton is not installed, as with CPU builds of torch, kernels are read and documented, and none runs."""

import os
import subprocess
import sys

import pytest

from conformance.documentation.pages import ROOT

WITHOUT = "import sys; sys.modules['triton'] = None; "


def python(code):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_kernel_that_nothing_compiles_is_not_launched():
    code = "from reference_engine.kernels.tokens import choose as k; print(k.__doc__.split(chr(10))[0]); k[(1,)](0)"
    done = python(code)
    assert done.stdout.startswith("The lowest id among those of the greatest logit")
    assert "ModuleNotFoundError: No module named 'triton'" in done.stderr


@pytest.mark.slow
def test_every_public_kernel_is_documented_without_triton(tmp_path):
    pytest.importorskip("pdoc", reason="the extra docs is not installed")
    code = (
        f"import pathlib, pdoc; pdoc.pdoc('reference_engine.kernels', output_directory=pathlib.Path({str(tmp_path)!r}))"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    pages = " ".join(page.read_text() for page in tmp_path.rglob("*.html"))
    for name in ("attend", "combine", "project", "embed", "choose"):
        assert f'id="{name}"' in pages, name
