"""Processes with faults planted that start at once: forked from one that has imported torch and the engine already.

`nursery.py serve SOCKET` forks until its standard input ends; `nursery.py ask SOCKET ARGUMENTS…` stands in for
`python -m conformance.faults ARGUMENTS…`: it gives its streams, directory and environment away, hands on the signals
that it gets, and ends as the forked process did. Without it each of some 300 faults would import torch several times.

What a process from here holds, it shares with its parent, and the process that answers for it is the asking one: rows
that measure the process itself see neither. Faults of their area are planted into processes of their own.
"""

from __future__ import annotations

import gc
import io
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conformance.faults.planting import Fault
    from conformance.manifest import LoadedManifest

Order = dict[str, Any]
SIZE_BYTES = 8
MEASURE_THE_PROCESS = {"memory"}
"""Areas of faults whose rows look at what their process holds."""
SERVED_S = 30.0
HANDED_ON = (signal.SIGINT, signal.SIGTERM)


class NurseryDied(Exception):
    """The process that others are forked from ended before it could serve."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the nursery ended with {status} before it could serve")


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
    """Exactly `size` bytes; EOFError if there are no more to come."""
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

    def serve(self) -> Order | None:
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

    def fork(self, line: socket.socket) -> Order | None:
        """The order in the forked process; None in this one, which goes on watching it."""
        size, streams, _, _ = socket.recv_fds(line, SIZE_BYTES, 3)
        order: Order = json.loads(received(line, int.from_bytes(size, "big")))
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


def take(order: Order, streams: list[int]) -> None:
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


def run_and_leave(work: Callable[[], None]) -> None:
    """End as the interpreter would, but without clearing torch away, which takes longer than most faults do.

    Whatever is not plain, an error or a stream that is closed, is left to the interpreter.
    """
    status = 0
    try:
        work()
    except SystemExit as left:
        if isinstance(left.code, str):
            raise
        status = left.code or 0
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def import_all() -> None:
    """What drivers and command lines import before they do work; no forked process looks through it for garbage."""
    import reference_engine.cli
    import reference_engine.engine  # noqa: F401
    from conformance.faults.planting import known_faults

    known_faults()
    gc.collect()
    gc.freeze()


@contextmanager
def nursery(directory: Path) -> Iterator[Path]:
    """Where processes with faults are to be had while the block runs; its socket lies in `directory`."""
    import subprocess

    from conformance.probes.nvml import NONE, VISIBLE

    path = directory / "nursery"
    # Only a process without threads can be forked.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", VISIBLE: NONE}
    command = [sys.executable, "-m", "conformance.faults.nursery", "serve", str(path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise NurseryDied(process.wait(SERVED_S))
            yield path
        finally:
            process.stdin.close()
            process.wait(SERVED_S)


def nursed(loaded: LoadedManifest, path: Path) -> LoadedManifest:
    """A fault's manifest, with processes from the nursery at `path`."""
    import msgspec

    from conformance.manifest import LoadedManifest

    begin = ["{python}", "-I", "-S", __file__, "ask", str(path)]
    driver, cli = loaded.manifest.driver, loaded.manifest.cli
    assert driver is not None
    assert cli is not None
    # Behind `python -m conformance.faults`.
    driver = msgspec.structs.replace(driver, command=[*begin, *driver.command[3:]])
    cli = msgspec.structs.replace(cli, command=[*begin, *cli.command[3:]])
    changed = msgspec.structs.replace(loaded.manifest, driver=driver, cli=cli)
    return LoadedManifest(changed, loaded.path, loaded.sha256)


def can_be_nursed(planted: Fault | None) -> bool:
    """Whether what a fault's rows see is the same in a forked process."""
    return planted is not None and planted.edit is None and planted.area not in MEASURE_THE_PROCESS


def main() -> None:
    """Serve, or ask."""
    role, path, *arguments = sys.argv[1:]
    if role == "ask":
        ask(path, arguments)
    from conformance.faults.__main__ import main as planted

    import_all()
    forking = Nursery(path)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    order = forking.serve()
    run_and_leave(lambda: planted(order["arguments"]) if order is not None else None)


if __name__ == "__main__":
    main()
