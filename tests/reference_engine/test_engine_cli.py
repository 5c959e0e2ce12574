"""The command line as a user meets it: real processes, pipes and a pseudo-terminal.

What only concerns the words of a command and its answers runs in this process, for each other one imports torch.
"""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from reference_engine.cli import main

APR = [sys.executable, "-m", "reference_engine.cli"]
NO_GPU = not torch.cuda.is_available()


def apr(*arguments, stdin=""):
    done = subprocess.run(
        [*APR, *map(str, arguments)], input=stdin.encode(), capture_output=True, timeout=120, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def here(*arguments, stdin=""):
    """The same without a process of its own."""
    streams = {"stdin": io.BytesIO(stdin.encode()), "stdout": io.BytesIO(), "stderr": io.BytesIO()}
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["apr", *map(str, arguments)])
        for name, stream in streams.items():
            patch.setattr(sys, name, io.TextIOWrapper(stream, write_through=True))
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        for name in streams:
            getattr(sys, name).detach()
    return code, streams["stdout"].getvalue().decode(), streams["stderr"].getvalue().decode()


def one_error(stderr):
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in stderr
    return lines[0]


def test_run_prints_the_answer_and_nothing_else(tied):
    code, out, err = apr("run", tied.path, "hello", "--no-gpu", "--max-tokens", 5)
    assert (code, err) == (0, "")
    again = apr("run", tied.path / "model.safetensors", "--no-gpu", "-n", 5, stdin="hello")
    assert again == (0, out, "")


def test_a_prompt_may_stand_behind_options_and_begin_with_a_dash(tied):
    _, out, _ = apr("run", tied.path, "hello", "--no-gpu", "--max-tokens", 5)
    assert apr("run", "--no-gpu", tied.path, "-n", 5, "hello") == (0, out, "")
    code, dashed, err = apr("run", tied.path, "--no-gpu", "-n", 5, "--json", "--", "--raw")
    assert (code, err) == (0, "")
    assert json.loads(dashed)["prompt_tokens"] > 0


def test_json_parses_and_tells_what_was_used(tied):
    code, out, err = here("run", tied.path, "hello", "--no-gpu", "--max-tokens", 6, "--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["tokens_generated"] == len(answer["tokens"]) <= 6
    assert answer["used_gpu"] is False
    assert answer["finish_reason"] in {"stop", "length"}


def test_verbose_names_the_backend_on_stderr(tied):
    _, quiet, _ = here("run", tied.path, "hello", "--no-gpu", "-n", 4)
    code, out, err = here("run", tied.path, "hello", "--no-gpu", "-n", 4, "--verbose")
    assert (code, out) == (0, quiet)
    backend = next(line for line in err.splitlines() if line.startswith("Backend: "))
    assert backend.startswith("Backend: CPU (")
    assert "GPU" not in backend
    assert "3 layers" in err


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_without_a_wish_the_cpu_is_used_and_named(tied):
    code, _, err = here("run", tied.path, "hello", "-n", 1)
    assert code == 0
    assert err.startswith("Backend: CPU (")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
@pytest.mark.parametrize("command", [("run", "hello"), ("chat",)])
def test_gpu_without_a_gpu_is_an_error_and_no_fallback(tied, command):
    code, out, err = here(command[0], tied.path, *command[1:], "--gpu", stdin="hello\n")
    assert (code, out) == (14, "")
    assert "--no-gpu" in one_error(err)


def test_sampling_is_repeatable_by_seed(tied):
    options = (
        "run",
        tied.path,
        "hello",
        "--no-gpu",
        "-n",
        12,
        "--temperature",
        1.5,
        "--top-p",
        0.9,
        "--json",
        "--seed",
    )
    first, second, other = (json.loads(here(*options, seed)[1])["tokens"] for seed in (1, 1, 2))
    assert first == second != other


def test_system_prompt_and_raw_change_the_prompt(tied):
    counts = [
        json.loads(here("run", tied.path, "hello", "--no-gpu", "-n", 1, "--json", *extra)[1])["prompt_tokens"]
        for extra in ((), ("--system", "be brief"), ("--raw",))
    ]
    assert counts[1] > counts[0] > counts[2] > 0


def test_chat_answers_a_pipe(tied):
    code, out, err = apr("chat", tied.path / "model.safetensors", "--no-gpu", "--max-tokens", 5, stdin="2+2=")
    assert (code, err) == (0, "")
    assert out.endswith("\n")


def test_chat_keeps_the_conversation_until_it_is_cleared(tied):
    stdin = "hello\n\nhow are you\n/clear\nhello\n/quit\nnever\n"
    code, out, err = here("chat", tied.path, "--no-gpu", "-n", 4, "--json", stdin=stdin)
    assert (code, err) == (0, "")
    first, second, third = map(json.loads, out.splitlines())
    assert second["prompt_tokens"] > first["prompt_tokens"] == third["prompt_tokens"]
    assert first["tokens"] == third["tokens"]


def test_chat_commands_speak_on_stderr(tied):
    code, out, err = here("chat", tied.path, "--no-gpu", stdin="/help\n/nonsense\n")
    assert (code, out) == (0, "")
    assert "/quit" in err
    assert "Unknown command: /nonsense" in err


def test_failing_turn_is_reported_and_the_conversation_goes_on(tied):
    stdin = "x" * 9000 + "\nhello\n"
    code, out, err = here("chat", tied.path, "--no-gpu", "-n", 2, "--json", stdin=stdin)
    assert code == 4
    assert "positions" in one_error(err)
    assert len(out.splitlines()) == 1


def test_system_command_sets_the_instruction(tied):
    code, out, _ = here("chat", tied.path, "--no-gpu", "-n", 1, "--json", stdin="hello\n/system be brief\nhello\n")
    plain, instructed = (json.loads(line)["prompt_tokens"] for line in out.splitlines())
    assert code == 0
    assert instructed > plain


def test_bytes_that_are_not_utf8_are_no_crash(tied):
    done = subprocess.run(
        [*APR, "chat", tied.path, "--no-gpu", "-n", "1"],
        input=b"\xff\xfe\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def damaged(tied, tmp_path, name, data):
    shutil.copytree(tied.path, tmp_path, dirs_exist_ok=True)
    if data is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    "damage",
    [
        ("model.safetensors", None, 3, "model.safetensors"),
        ("model.safetensors", b"\xff" * 40, 4, "SafeTensors"),
        ("config.json", None, 3, "config.json"),
        ("config.json", b"{", 6, "config.json"),
        ("config.json", b'{"architectures": ["GPT2LMHeadModel"]}', 6, "GPT2LMHeadModel"),
        ("tokenizer.json", b"{}", 6, "tokenizer.json"),
        ("tokenizer.json", None, 4, "tokenizer.json"),
        ("tokenizer_config.json", b'{"chat_template": "{{"}', 6, "tokenizer_config.json"),
    ],
)
def test_damage_is_one_clear_line_and_an_exit_code(tied, tmp_path, damage):
    name, data, code, word = damage
    found, out, err = here("run", damaged(tied, tmp_path, name, data), "hello", "--no-gpu", "--json")
    assert (found, out) == (code, "")
    assert word in one_error(err)


def test_absent_source_and_usage(tmp_path):
    code, out, err = apr("run", tmp_path / "absent", "hello", "--no-gpu")
    assert (code, out) == (3, "")
    assert "absent" in one_error(err)
    for arguments in (("run",), ("run", "x", "--bogus"), ("run", "x", "y", "--max-tokens", "-3"), ("fly",)):
        code, out, _ = apr(*arguments)
        assert (code, out) == (2, "")


def test_help_teaches_and_needs_no_torch(tied):
    code, out, _ = apr("chat", "--help")
    assert code == 0
    assert "echo" in out
    program = "import sys, reference_engine.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert tied.path.is_dir()


def test_empty_raw_prompt_is_refused_clearly(tied):
    code, out, err = here("run", tied.path, "", "--raw", "--no-gpu")
    assert (code, out) == (4, "")
    assert "empty" in one_error(err)


def test_reader_that_goes_away_is_no_error_text(tied):
    process = subprocess.Popen(
        [*APR, "run", tied.path, "hello", "--no-gpu", "-n", "900", "--temperature", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert err == b""


def test_no_gpu_asks_nothing_of_cuda(tied):
    program = (
        "import sys, torch\n"
        "def forbidden(*_): raise SystemExit('CUDA was asked')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda.init = forbidden\n"
        "from reference_engine.cli import main\n"
        f"sys.argv = ['apr', 'run', {str(tied.path)!r}, 'hello', '--no-gpu', '-n', '2', '-v']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_while_torch_is_imported_the_collector_does_not_walk_it(tied):
    """A walk over all objects takes tenths of a second, as often as torch doubles their number."""
    program = (
        "import atexit, gc, sys\n"
        "walks = []\n"
        "gc.callbacks.append(lambda phase, about: walks.append(about['generation'] == 2 and phase == 'stop'))\n"
        "atexit.register(lambda: print(sum(walks), gc.isenabled(), gc.get_freeze_count() > 50_000, file=sys.stderr))\n"
        "from reference_engine.cli import main\n"
        f"sys.argv = ['apr', 'run', {str(tied.path)!r}, 'hello', '--no-gpu', '-n', '2']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.stderr.split() == [b"0", b"True", b"True"]


# --- pseudo-terminal --------------------------------------------------------------------------------------


def heed_interrupts():
    """As a login shell leaves it: in background jobs SIGINT is ignored, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    def __init__(self, *arguments):
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            heed_interrupts()
            os.execv(sys.executable, [*APR, *map(str, arguments)])
        self.seen = b""

    def wait_for(self, text, seconds=60):
        end = time.monotonic() + seconds
        while self.seen.count(text) == 0:
            ready, _, _ = select.select([self.descriptor], [], [], max(end - time.monotonic(), 0))
            assert ready, self.seen
            try:
                self.seen += os.read(self.descriptor, 4096)
            except OSError:
                break
        assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def type(self, text):
        os.write(self.descriptor, text)

    def exit_code(self):
        try:
            while os.read(self.descriptor, 4096):
                pass
        except OSError:
            pass
        os.close(self.descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_chat_on_a_terminal_asks_answers_and_ends_at_end_of_input(tied):
    terminal = Terminal("chat", tied.path, "--no-gpu", "-n", 3)
    terminal.wait_for(b"You: ")
    terminal.type(b"hello\n")
    terminal.wait_for(b"You: ")
    terminal.type(b"/help\n")
    terminal.wait_for(b"/quit")
    terminal.wait_for(b"You: ")
    terminal.type(b"\x04")
    assert terminal.exit_code() == 0


def test_ctrl_c_ends_a_chat_politely(tied):
    terminal = Terminal("chat", tied.path, "--no-gpu")
    terminal.wait_for(b"You: ")
    terminal.type(b"\x03")
    terminal.wait_for(b"Interrupted.")
    assert terminal.exit_code() == 130


def test_ctrl_c_ends_a_long_answer_politely(tied):
    process = subprocess.Popen(
        [*APR, "run", tied.path, "hello", "--no-gpu", "-n", "2000", "--temperature", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,  # noqa: PLW1509 - no other thread of this test holds a lock
    )
    process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
