"""What the tests of the documentation share: its pages, their code, and the command line as a process."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conformance.documentation.pages import pages

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OURS = [*pages(), ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("falsify ", "nox ", "apr ", "python -m ", "pip ")


def code_of(text):
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def falsify(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "conformance", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def trial(directory, *words):
    """The run directory of a small trial that ended in order."""
    done = falsify("run", *words, cwd=directory)
    assert done.returncode in {0, 1, 3}, done.stdout + done.stderr
    return (directory / "falsify-run" / "latest").resolve()
