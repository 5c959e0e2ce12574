"""The context that is made beside the import of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from reference_engine import context


@pytest.mark.parametrize("driver", ["no-such-driver.so.1", "libc.so.6"])
def test_without_a_driver_nothing_happens(monkeypatch, driver):
    """The second is a library that is no driver: its symbols are missing, as in a driver far too old."""
    monkeypatch.setattr(context, "DRIVER", driver)
    thread = context.make_context_meanwhile()
    thread.join(30)
    assert not thread.is_alive()


def test_no_gpu_does_not_load_the_driver(tied):
    program = (
        "import sys\n"
        "from reference_engine.cli import main\n"
        "def refuse(*_): raise SystemExit('the driver was asked')\n"
        "import reference_engine.cli\n"
        "reference_engine.cli.make_context_meanwhile = refuse\n"
        f"sys.argv = ['apr', 'run', {str(tied.path)!r}, 'hello', '--no-gpu', '-n', '2']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
