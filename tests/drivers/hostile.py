"""Drivers that misbehave: `python hostile.py NAME`. Standard library only, so that each starts in 20 ms.

Every one answers `initialize` properly unless its name begins with `start_`; what it does wrong it does at the
first call after that.
"""

import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time

ENGINE = {"name": "hostile", "version": "1", "capabilities": ["file"]}


def read():
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def say(text):
    os.write(1, text.encode() + b"\n")


def answer(request, result):
    say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))


def opened():
    answer(read(), ENGINE)
    return read()


def complain(text="last words"):
    os.write(2, text.encode() + b"\n")


def start_import_error():
    import no_such_module  # noqa: F401


def start_exit():
    complain()
    sys.exit(3)


def start_hang():
    complain("thinking")
    time.sleep(60)


def start_unknown_capability():
    answer(read(), {**ENGINE, "capabilities": ["file", "telepathy"]})
    time.sleep(60)


def start_refuse():
    request = read()
    say(json.dumps({"id": request["id"], "error": {"code": -32000, "message": "no licence"}}))
    time.sleep(60)


def start_garbage():
    say("ggml_init: found 1 device")
    answer(read(), ENGINE)
    time.sleep(60)


def hang():
    opened()
    complain("thinking")
    time.sleep(60)


def compute():
    request = opened()
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    answer(request, {"payload": "computed"})


def spin():
    opened()
    while True:
        pass


def exit_at_once():
    answer(read(), ENGINE)
    read()
    complain()
    os._exit(7)


def exit_between():
    answer(read(), ENGINE)
    os._exit(5)


def segfault():
    opened()
    complain()
    ctypes.string_at(0)


def abort():
    opened()
    complain("terminate called")
    os.abort()


def bus():
    opened()
    complain()
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * mmap.PAGESIZE)
        mapping = mmap.mmap(file.fileno(), 4 * mmap.PAGESIZE)
        file.truncate(mmap.PAGESIZE)
        mapping[3 * mmap.PAGESIZE]


def kill_itself():
    opened()
    os.kill(os.getpid(), signal.SIGKILL)


def half_an_answer():
    opened()
    os.write(1, b'{"jsonrpc":"2.0","id":2,"res')
    os._exit(9)


def flood_lines():
    opened()
    while True:
        os.write(1, b"garbage\n" * 8192)


def flood_after_answer():
    answer(opened(), {"payload": ""})
    while True:
        os.write(1, b"garbage\n" * 8192)


def flood_one_line():
    opened()
    while True:
        os.write(1, b"x" * 65536)


def flood_stderr():
    opened()
    while True:
        os.write(2, b"warning\n" * 8192)


def flood_stderr_and_answer():
    request = opened()
    os.write(2, b"first words\n" + b"warning\n" * 500_000 + b"last words\n")
    answer(request, {"payload": "after the flood"})
    read()


def wrong_id():
    request = opened()
    answer({"id": request["id"] + 1}, {})
    time.sleep(60)


def wrong_id_on_model():
    answer(read(), {**ENGINE, "capabilities": ["model", "generate"]})
    answer({"id": read()["id"] + 1}, {})
    time.sleep(60)


def answer_twice():
    request = opened()
    answer(request, {"payload": "once"})
    answer(request, {"payload": "twice"})
    read()
    time.sleep(60)


def both_result_and_error():
    request = opened()
    say(json.dumps({"id": request["id"], "result": {}, "error": {"code": 1, "message": "x"}}))
    time.sleep(60)


def neither_result_nor_error():
    say(json.dumps({"id": opened()["id"]}))
    time.sleep(60)


def wrong_type():
    answer(opened(), {"payload": 5})
    time.sleep(60)


def null_result():
    answer(opened(), None)
    time.sleep(60)


def not_a_number():
    request = opened()
    answer(request, {"payload": float("nan")})
    time.sleep(60)


def not_utf8():
    opened()
    os.write(1, b'{"id": 2, "result": {"payload": "\xff\xfe"}}\n')
    time.sleep(60)


def unknown_kind():
    error = {"code": 1, "message": "x", "data": {"kind": "bad_hair_day"}}
    say(json.dumps({"id": opened()["id"], "error": error}))
    time.sleep(60)


def nested_result():
    opened()
    deep = "[" * 100_000 + "]" * 100_000
    say('{"id": 2, "result": ' + deep + "}")
    time.sleep(60)


def nested_field():
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    opened()
    say('{"zzz": ' + deep + "}")
    time.sleep(60)


def close_stdout():
    opened()
    complain("going dark")
    os.close(1)
    time.sleep(60)


def deaf():
    answer(read(), ENGINE)
    time.sleep(60)


def close_stdin():
    answer(read(), ENGINE)
    os.close(0)
    time.sleep(60)


def stubborn():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    request = opened()
    answer(request, {"payload": ""})
    while True:
        time.sleep(60)


def chatty_at_the_end():
    answer(opened(), {"payload": ""})
    sys.stdin.buffer.read()
    say("goodbye")


def grow():
    opened()
    hoard = []
    while True:
        hoard.append(bytearray(b"x") * (8 << 20))
        time.sleep(0.005)


def grow_in_child():
    opened()
    if os.fork() == 0:
        hoard = []
        while True:
            hoard.append(bytearray(b"x") * (8 << 20))
            time.sleep(0.005)
    time.sleep(60)


def _detach(seconds="60"):
    """A grandchild in a session of its own, whose parent is gone, that holds our pipes open."""
    code = f"import os,signal,time; os.fork() and os._exit(0); signal.signal(15, signal.SIG_IGN); time.sleep({seconds})"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], start_new_session=True, check=True)


def detach():
    request = opened()
    _detach()
    answer(request, {"payload": ""})
    read()


def detach_and_die():
    opened()
    _detach()
    complain()
    os._exit(4)


def kill_guard():
    opened()
    _detach()
    complain()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def stop_guard():
    opened()
    _detach()
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(60)


def bomb():
    request = opened()
    for _ in range(40):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
            time.sleep(60)
            os._exit(0)
    answer(request, {"payload": ""})
    read()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
