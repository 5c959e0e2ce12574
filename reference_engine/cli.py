"""The `apr` command line: `run` answers once, `chat` holds a conversation, `convert` writes another format.

Only answers go to stdout; everything else goes to stderr. torch is imported after the arguments are read.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from argparse import REMAINDER, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reference_engine.checkpoint import Checkpoint
from reference_engine.config import read_config
from reference_engine.context import make_context_meanwhile
from reference_engine.errors import EngineError, InvalidArgument
from reference_engine.header import _no_collector

if TYPE_CHECKING:
    from reference_engine.chat import ChatMessage
    from reference_engine.device import Device
    from reference_engine.engine import InferenceResult

INTERRUPTED = 130
BROKEN_PIPE = 141
CHAT_HELP = "/clear forgets the conversation, /system TEXT sets the instruction, /quit ends; so does Ctrl-D"
ABOUT = "Run SafeTensors models on a GPU or the CPU. Answers go to stdout, everything else to stderr."
EXIT_CODES = (
    "Exit codes: 0 answered; 2 usage; 3 file not found; 4 invalid file or argument; 6 unusable model; "
    "7 unreadable file; 8 inference failed; 14 no such device; 130 interrupted."
)


class Session:
    """A loaded engine with the options of one invocation."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        with Checkpoint(options.source) as checkpoint:
            # What is wrong with the files is told at once, before seconds are spent on importing torch.
            read_config(checkpoint.side_files)
        # The collector would walk all of torch several times meanwhile, and find nothing of it to free ever after.
        with _no_collector():
            self.device = _open_device(options.gpu)
            from reference_engine.engine import Engine

            if options.verbose:
                _say(f"Loading SafeTensors model: {options.source}")
            self.engine = Engine.load(options.source, self.device)
            gc.freeze()
        if options.verbose or options.gpu is None:
            _say(_backend(self.device))
        if options.verbose:
            config = self.engine.model.config
            _say(f"Architecture: {config.architecture} ({config.num_layers} layers, vocab_size={config.vocab_size})")
            _say(f"Model loaded in {self.engine.load_seconds * 1000:.1f}ms")

    def answer(self, messages: list[ChatMessage]) -> str:
        """Generate the answer to a conversation (with `raw`: to its last message alone), and print it."""
        from reference_engine.generate import GenerationRequest

        options, engine = self.options, self.engine
        prompt = engine.raw_prompt(messages[-1]["content"]) if options.raw else engine.render(messages).ids
        request = GenerationRequest(prompt, options.max_tokens, options.temperature, options.top_p, options.seed)
        result = engine.infer(request, None if options.json else _write)
        _write(_as_json(self, result) if options.json else "\n")
        if options.verbose:
            seconds, rate = result.inference_seconds, result.tokens_per_second
            _say(f"{len(result.ids)} tokens in {seconds:.2f}s ({rate:.1f} tok/s), finish_reason={result.finish_reason}")
        return result.text


def run(options: Namespace) -> None:
    """Answer one prompt.

    Example: apr run Qwen2.5-1.5B-Instruct "What is 2+2?" --gpu --max-tokens 16
    """
    if options.prompt is None and sys.stdin.isatty():
        raise InvalidArgument("prompt", "give one, or pipe it into stdin")
    text = sys.stdin.read() if options.prompt is None else options.prompt
    Session(options).answer([*_instruction(options.system), {"role": "user", "content": text}])


def convert(options: Namespace) -> None:
    """Write a checkpoint as one APR or GGUF file, values unchanged.

    Example: apr convert Qwen2.5-1.5B-Instruct qwen.apr
    """
    from reference_engine.formats.converting import convert as write

    write(options.source, options.target)


def chat(options: Namespace) -> None:
    """Hold a conversation, one line of stdin a turn; works through a pipe as well as on a terminal.

    A turn that fails is reported and forgotten, and decides the exit code.
    Example: echo "2+2=" | apr chat model.safetensors --gpu --max-tokens 5
    Commands: /clear forgets the conversation, /system TEXT sets the instruction, /help, /quit.
    """
    session, messages, failed = Session(options), _instruction(options.system), 0
    for line in _lines():
        command, _, argument = line.partition(" ")
        if command in {"/quit", "/exit", "/q"}:
            break
        if command == "/clear":
            messages = [message for message in messages if message["role"] == "system"]
        elif command == "/system":
            messages = _instruction(argument or None)
        elif command.startswith("/"):
            _say(CHAT_HELP if command in {"/help", "/h", "/?"} else f"Unknown command: {command}; {CHAT_HELP}")
        else:
            turn: list[ChatMessage] = [*messages, {"role": "user", "content": line}]
            try:
                messages = [*turn, {"role": "assistant", "content": session.answer(turn)}]
            except EngineError as error:
                _say(f"error: {error}")
                failed = error.exit_code
    if failed:
        sys.exit(failed)


COMMANDS: dict[str, Callable[[Namespace], None]] = {"run": run, "chat": chat, "convert": convert}


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """A command and its options, those of this process if None; a wrong one ends the process with 2."""
    apr = ArgumentParser("apr", description=ABOUT, epilog=EXIT_CODES)
    apr.add_argument("command", choices=COMMANDS, help="Answer once, hold a conversation, or write another format.")
    apr.add_argument("arguments", nargs=REMAINDER, help="Those of the command; `apr COMMAND --help` lists them.")
    found = apr.parse_args(arguments)
    about = COMMANDS[found.command].__doc__
    command = ArgumentParser(f"apr {found.command}", description=about, epilog=EXIT_CODES, allow_abbrev=False)
    _declare(command.add_argument, found.command)
    # Intermixed: a prompt may stand behind options.
    options = command.parse_intermixed_args(found.arguments, Namespace(command=found.command))
    if found.command != "convert" and not (min(options.max_tokens, options.temperature) >= 0 <= options.top_p <= 1):
        command.error("--max-tokens and --temperature are not below 0, and --top-p lies from 0 to 1")
    return options


def _declare(add: Callable[..., object], command: str) -> None:
    """The arguments of a command."""
    add("source", type=Path, help="Checkpoint directory, a .safetensors file inside one, or a GGUF or APR file.")
    if command == "convert":
        add("target", type=Path, help="File to write; .apr or .gguf names the format.")
        return
    if command == "run":
        add("prompt", nargs="?", help="What to answer; without it, all of stdin.")
    add("--gpu", action=BooleanOptionalAction, help="Insist on a GPU, or on the CPU. Default: a GPU if there is one.")
    most = 32 if command == "run" else 512
    add("--max-tokens", "-n", type=int, default=most, help="New tokens at most: %(default)s.")
    add("--temperature", type=float, default=0.0, help="0 is greedy and repeatable; higher is more varied.")
    add("--top-p", type=float, default=1.0, help="Sample from the likeliest tokens that reach this sum.")
    add("--seed", type=int, default=0, help="Of the sampling; without effect at temperature 0.")
    add("--system", help="Instruction for the whole conversation.")
    add("--raw", action="store_true", help="Feed the prompt as it is, without the chat template.")
    add("--json", action="store_true", help="One JSON object an answer on stdout.")
    add("--verbose", "-v", action="store_true", help="Say on stderr what is loaded, where, and how fast.")


def _lines() -> Iterator[str]:
    """Lines of stdin that hold something, after a prompt if somebody is typing."""
    prompt = "You: " if sys.stdin.isatty() else ""
    _say(prompt, end="")
    while line := sys.stdin.readline():
        if line.strip():
            yield line.strip()
        _say(prompt, end="")


def _instruction(system: str | None) -> list[ChatMessage]:
    return [{"role": "system", "content": system}] if system is not None else []


def _open_device(gpu: bool | None) -> Device:
    """The GPU if wanted or, without a wish, if there is one; the CPU without so much as asking for GPUs."""
    context = None if gpu is False else make_context_meanwhile()
    from reference_engine.device import CPU, CUDA, Device, cuda_count

    if context is not None:
        context.join()
    if gpu is None:
        gpu = cuda_count() > 0
    return Device(0, CUDA if gpu else CPU)


def _backend(device: Device) -> str:
    if not device.is_cuda:
        import torch

        return f"Backend: CPU ({torch.get_num_threads()} threads)"
    return f"Backend: GPU ({device.name}, {device.memory()[1] >> 20} MB VRAM)"


def _as_json(session: Session, result: InferenceResult) -> str:
    """The answer as one line of JSON."""
    device = session.device
    fields = {
        "model": str(session.options.source),
        "text": result.text,
        "tokens": result.ids,
        "tokens_generated": len(result.ids),
        "prompt_tokens": result.prompt_tokens,
        "max_tokens": session.options.max_tokens,
        "finish_reason": result.finish_reason,
        "tok_per_sec": round(result.tokens_per_second, 2),
        "inference_time_ms": round(result.inference_seconds * 1000, 3),
        "load_time_ms": round(result.load_seconds * 1000, 3),
        "used_gpu": result.used_gpu,
        "backend": device.name if device.is_cuda else "cpu",
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str, end: str = "\n") -> None:
    sys.stderr.write(text + end)
    sys.stderr.flush()


@contextmanager
def _reported() -> Iterator[None]:
    """Turn errors inside the block into one line on stderr and an exit code."""
    try:
        yield
    except EngineError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Nobody reads any more; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def main() -> None:
    """Entry point of `apr`."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Text is UTF-8 whatever the locale; what is not, is replaced and not fatal.
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    options = parse()
    with _reported():
        COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
