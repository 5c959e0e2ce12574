"""Processes with faults planted that start at once: forked from one that has imported torch and the engine already.

`nursery.py serve SOCKET` forks until its standard input ends; `nursery.py ask SOCKET ARGUMENTS…` stands in for
`python -m conformance.faults ARGUMENTS…`: it gives its streams, directory and environment away, hands on the signals
that it gets, and ends as the forked process did. Without it each of 240 faults would import torch anew.
"""

from __future__ import annotations

import io
import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

SIZE_BYTES = 8
HANDED_ON = (signal.SIGINT, signal.SIGTERM)


def ask(path: str, arguments: list[str]) -> None:
    """The caller's side: whoever started this process sees the forked one's streams and its end."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        text = json.dumps({"arguments": arguments, "directory": str(Path.cwd()), "environment": dict(os.environ)})
        order = text.encode()
        socket.send_fds(line, [len(order).to_bytes(SIZE_BYTES, "big")], [0, 1, 2])
        line.sendall(order)
        pid = int.from_bytes(received(line, SIZE_BYTES), "big")
        for number in HANDED_ON:
            signal.signal(number, lambda number, _frame: os.kill(pid, number))
        os.closerange(0, 3)
        status = int.from_bytes(received(line, SIZE_BYTES), "big", signed=True)
    if status < 0:
        if -status in HANDED_ON:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def received(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = line.recv(size - len(found))
        if not piece:
            raise EOFError
        found += piece
    return found


class Nursery:
    """The forking side. `serve` returns in the process that owns it when that ends, and in every forked one."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(16)
        self.selector = selectors.DefaultSelector()
        self.selector.register(0, selectors.EVENT_READ, None)
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def serve(self) -> dict | None:
        """The order that this, a forked process, is to follow; None when there are no more to come."""
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    return None
                if key.fileobj is self.listener:
                    if (order := self.fork(self.listener.accept()[0])) is not None:
                        return order
                elif key.fd in self.selector.get_map():
                    self.end(*key.data)

    def fork(self, line: socket.socket) -> dict | None:
        size, streams, _, _ = socket.recv_fds(line, SIZE_BYTES, 3)
        order = json.loads(received(line, int.from_bytes(size, "big")))
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            self.listener.close()
            line.close()
            take(order, streams)
            return order
        for stream in streams:
            os.close(stream)
        line.sendall(pid.to_bytes(SIZE_BYTES, "big"))
        ended = os.pidfd_open(pid)
        for watched in (line, ended):
            self.selector.register(watched, selectors.EVENT_READ, (pid, line, ended))
        return None

    def end(self, pid: int, line: socket.socket, ended: int) -> None:
        """Tell the caller how it ended; a caller who is gone takes the process with it."""
        if not os.waitid(os.P_PIDFD, ended, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.selector.unregister(line)
        self.selector.unregister(ended)
        with suppress(OSError):
            line.sendall(status.to_bytes(SIZE_BYTES, "big", signed=True))
        line.close()
        os.close(ended)


def take(order: dict, streams: list[int]) -> None:
    """Make this process look as if it had been started with the caller's streams, directory and environment."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    # What Python found out about the parent's streams, whether they can seek, is not so of these.
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), line_buffering=lines)
        for number, lines in ((1, os.isatty(1)), (2, True))
    )


def import_all() -> None:
    """What drivers and command lines import before they do work."""
    import reference_engine.cli
    import reference_engine.engine  # noqa: F401
    from conformance.faults.planting import known_faults

    known_faults()


def main() -> None:
    role, path, *arguments = sys.argv[1:]
    if role == "ask":
        ask(path, arguments)
    from conformance.faults.__main__ import main as planted

    import_all()
    nursery = Nursery(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    order = nursery.serve()
    if order is not None:
        planted(order["arguments"])


if __name__ == "__main__":
    main()
