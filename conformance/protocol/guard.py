"""The guard: a small process that stands between the harness and a driver, so that nothing is ever left behind.

It is the reaper of everything the driver starts (`PR_SET_CHILD_SUBREAPER`), also of what detaches itself with
`setsid`. When the driver ends, or the harness does (its end of the control socket closes, even by SIGKILL), the
guard kills every descendant and ends. It runs as a script, `python guard.py FD`, and imports next to nothing:
its start is part of every spawn.

On the control socket the harness sends one order (`encode_order`); the guard answers in lines:
`pid N` or `failed TEXT`, and when the driver has ended `exit STATUS MAX_RSS`, with the raw wait status and KiB.
"""

# ruff: noqa: PTH123, PTH208 - pathlib would be half of the guard's start
from __future__ import annotations

import os
import resource
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_INTERVAL_MS = 2
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIZE_BYTES = 8


def encode_order(command: list[str], cwd: str, env: dict[str, str]) -> bytes:
    """The order to start a driver: its size, then directory, argument count, arguments and environment.

    Raises:
        ValueError: a part contains a NUL, which no process can be given.
    """
    parts = [cwd, str(len(command)), *command, *(f"{name}={value}" for name, value in env.items())]
    if any("\0" in part for part in parts):
        raise ValueError("an argument or environment variable contains a NUL")
    body = b"\0".join(os.fsencode(part) for part in parts)
    return len(body).to_bytes(SIZE_BYTES, "big") + body


def decode_order(body: bytes) -> tuple[list[str], str, dict[str, str]]:
    """The command, directory and environment of an order without its size."""
    cwd, count, *rest = (os.fsdecode(part) for part in body.split(b"\0"))
    command, variables = rest[: int(count)], rest[int(count) :]
    return command, cwd, dict(variable.split("=", 1) for variable in variables)


def prctl(option: int, value: int) -> None:
    """Set a flag of this process; a kernel that does not know it is no error, the other defences remain."""
    # SAFETY: one foreign call, made below with the integer arguments that prctl(2) takes.
    import ctypes  # noqa: PLC0415 - costs more than all the rest of the guard

    # SAFETY: five integers go in, an integer that nobody needs comes back; no memory is shared.
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_with_parent() -> None:
    """This process must not outlive whoever started it, however that ends."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(root: int) -> list[int]:
    """Process ids of all living descendants of `root`, parents first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_parent(name), []).append(int(name))
    found = list(children.get(root, ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def main(control: int) -> None:
    """Start the driver that the harness orders on descriptor `control`, and outlive all it starts."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(control, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    order = _receive_order(control)
    if order is None:
        return
    woken = _wake_on_child()
    driver = _start(control, *decode_order(order))
    if driver is None:
        return
    _forget_standard_streams()
    _watch(control, woken, driver)
    _end_all(control, driver)


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may contain anything, parentheses and spaces too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _receive_order(control: int) -> bytes | None:
    size = _receive(control, SIZE_BYTES)
    return None if size is None else _receive(control, int.from_bytes(size, "big"))


def _receive(control: int, size: int) -> bytes | None:
    received = b""
    while len(received) < size:
        piece = os.read(control, size - len(received))
        if not piece:
            return None
        received += piece
    return received


def _send(control: int, text: str) -> None:
    try:
        os.write(control, text.encode("utf-8", "replace") + b"\n")
    except OSError:
        return  # the harness is gone; what is left to do does not need it


def _wake_on_child() -> int:
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def _start(control: int, command: list[str], cwd: str, env: dict[str, str]) -> int | None:
    failed, failing = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, cwd, env, guard, failing)
    os.close(failing)
    with open(failed, "rb") as pipe:
        cause = pipe.read()
    if cause:
        os.waitpid(pid, 0)
        _send(control, "failed " + cause.decode("utf-8", "replace").replace("\n", " "))
        return None
    _send(control, f"pid {pid}")
    return pid


def _become(command: list[str], cwd: str, env: dict[str, str], guard: int, failing: int) -> None:
    concerned = cwd
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guard:
            _restore_signals()
            _prefer_for_oom()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core is as large as the model, and written elsewhere
            os.chdir(cwd)
            concerned = command[0]
            os.execvpe(command[0], command, env)  # noqa: S606 - no shell is meant
    except OSError as error:
        os.write(failing, f"{error.strerror}: {concerned}".encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (*IGNORED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _prefer_for_oom() -> None:
    # When memory runs out the kernel should take the engine on trial, not the harness that reports it.
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        return


def _forget_standard_streams() -> None:
    # They are the driver's: held here, the harness would never see them close.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def _watch(control: int, woken: int, driver: int) -> None:
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(woken, select.POLLIN)
    while True:
        for ready, _ in poller.poll():
            if ready == control:
                return
            os.read(woken, 4096)
            if driver in _reap(control, driver)[0]:
                return


def _end_all(control: int, driver: int) -> None:
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        _, left = _reap(control, driver)
        if not left:
            return
        select.poll().poll(KILL_INTERVAL_MS)


def _reap(control: int, driver: int) -> tuple[list[int], bool]:
    """Pids of the children that have ended since the last call, and whether any is left."""
    ended: list[int] = []
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended.append(pid)
        if pid == driver:
            _send(control, f"exit {status} {usage.ru_maxrss}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
