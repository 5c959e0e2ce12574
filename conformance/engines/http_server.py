"""A server process on 127.0.0.1: started, watched until it is healthy, asked in JSON, and ended."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

HOST = "127.0.0.1"
MAX_ANSWER_BYTES = 16 * 1024 * 1024
_DYING_S = 2.0
_POLL_S = 0.1
_END_S = 10.0
_TAIL_BYTES = 300


class ServerDied(Exception):
    """The server ended before it was healthy, or while it was asked."""

    def __init__(self, code: int, tail: str) -> None:
        self.code, self.tail = code, tail
        super().__init__(f"the server ended with exit status {code}; its last words: {tail or 'none'}")


class NeverHealthy(Exception):
    """The server runs and does not answer its health check in time."""

    def __init__(self, path: str, seconds: float, tail: str) -> None:
        self.path, self.seconds, self.tail = path, seconds, tail
        super().__init__(f"GET {path} was not answered 200 within {seconds:g} s; its last words: {tail or 'none'}")


class AnswerRefused(Exception):
    """The server answered with another status than 200, or with what is no JSON object."""

    def __init__(self, path: str, status: int, said: str) -> None:
        self.path, self.status, self.said = path, status, said
        super().__init__(f"POST {path} was answered {status}: {said}")

    @property
    def blames_request(self) -> bool:
        """Whether the status says that the request was wrong."""
        return http.client.BAD_REQUEST <= self.status < http.client.INTERNAL_SERVER_ERROR


class HttpServer:
    """One server process; what it prints goes to a file of its own, of which the end is kept for errors."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self.port = port
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        self._process = subprocess.Popen(  # the manifest's own command
            list(command), stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )

    def wait_until_healthy(self, path: str, seconds: float) -> None:
        """Ask for `path` until it is answered 200.

        Raises:
            ServerDied, NeverHealthy: it is not; the process is ended.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._require_alive()
            with suppress(OSError, http.client.HTTPException):
                if self._exchange("GET", path, None, 5.0)[0] == http.client.OK:
                    self._require_alive()  # else somebody else has the port
                    return
            time.sleep(_POLL_S)
        tail = self.tail()
        self.close()
        raise NeverHealthy(path, seconds, tail)

    def ask(self, path: str, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The JSON object with which a request is answered.

        Raises:
            AnswerRefused: another status, or no object.
            ServerDied: nobody is there any more.
            TimeoutError: no answer in time.
        """
        try:
            status, raw = self._exchange("POST", path, json.dumps(request).encode(), seconds)
        except (ConnectionError, http.client.HTTPException):
            with suppress(subprocess.TimeoutExpired):  # a process that dies closes its connections first
                self._process.wait(_DYING_S)
            self._require_alive()
            raise
        said = raw.decode(errors="replace")
        try:
            answer = json.loads(said)
        except ValueError:
            answer = None
        if status != http.client.OK or not isinstance(answer, dict):
            raise AnswerRefused(path, status, said[:_TAIL_BYTES])
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()

    def _require_alive(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise ServerDied(code, self.tail())

    def tail(self) -> str:
        """The end of what it printed, in one line."""
        size = os.fstat(self._output.fileno()).st_size
        raw = os.pread(self._output.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        return " ".join(raw.decode(errors="replace").split())

    def close(self) -> None:
        """End it, politely first."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
