"""What really passes over the pipe between the harness and the example driver."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from conformance.documentation.markdown import fenced
from conformance.protocol.messages import FileOpen, Initialize, Message, Ping, Request

_SECONDS = 60


def transcript(root: Path) -> str:
    """Requests and answers in turn, as a code block."""
    asked = [
        _request(1, "initialize", Initialize(run_dir="/runs/7/exchange", threads=1)),
        _request(2, "ping", Ping("☕")),
        _request(3, "file.open", FileOpen("missing.safetensors")),
        _request(4, "file.burn", FileOpen("missing.safetensors")),
        _request(5, "shutdown", None),
    ]
    answers = _converse(root / "docs" / "examples" / "minimal_driver.py", root, asked)
    lines = [text for pair in zip(asked, answers, strict=True) for text in (f"> {pair[0]}", f"< {pair[1]}")]
    return fenced("\n".join(lines), "text")


def _request(number: int, method: str, params: Message | None) -> str:
    raw = msgspec.UNSET if params is None else msgspec.Raw(msgspec.json.encode(params))
    return msgspec.json.encode(Request(number, method, raw)).decode()


def _converse(driver: Path, root: Path, asked: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, str(driver)],
            input="\n".join(asked).encode() + b"\n",
            capture_output=True,
            cwd=directory,
            env=os.environ | {"PYTHONPATH": str(root)},
            timeout=_SECONDS,
            check=True,
        )
    return done.stdout.decode().splitlines()
