"""The `apr` command line: `run` answers once, `chat` holds a conversation.

Only answers go to stdout; everything else goes to stderr. torch is imported after the arguments are read.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from reference_engine.checkpoint import Checkpoint
from reference_engine.config import read_config
from reference_engine.context import make_context_meanwhile
from reference_engine.errors import EngineError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reference_engine.chat import ChatMessage
    from reference_engine.device import Device
    from reference_engine.engine import Engine, InferenceResult

INTERRUPTED = 130
BROKEN_PIPE = 141
CHAT_HELP = "/clear forgets the conversation, /system TEXT sets the instruction, /quit ends; so does Ctrl-D"
EXIT_CODES = (
    "Exit codes: 0 answered; 2 usage; 3 file not found; 4 invalid file or argument; 6 unusable model; "
    "7 unreadable file; 8 inference failed; 14 no such device; 130 interrupted."
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run SafeTensors models on a GPU or the CPU. Answers go to stdout, everything else to stderr.",
    epilog=EXIT_CODES,
)

Source = Annotated[
    Path,
    typer.Argument(
        help="Checkpoint directory, a .safetensors file inside one, or a GGUF or APR file.", show_default=False
    ),
]
Gpu = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--no-gpu", help="Insist on a GPU, or on the CPU. Default: a GPU if there is one.", show_default=False
    ),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", min=0, help="New tokens at most.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy and repeatable; higher is more varied.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest tokens that reach this sum.")]
Seed = Annotated[int, typer.Option(help="Of the sampling; without effect at temperature 0.")]
System = Annotated[str | None, typer.Option(help="Instruction for the whole conversation.", show_default=False)]
Raw = Annotated[bool, typer.Option("--raw", help="Feed the prompt as it is, without the chat template.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object an answer on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is loaded, where, and how fast.")]


class Options(NamedTuple):
    """What both commands take."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    raw: bool
    json: bool
    verbose: bool


class Session:
    """A loaded engine with the options of one invocation."""

    def __init__(self, source: Path, gpu: bool | None, options: Options) -> None:
        self.source = source
        self.options = options
        with Checkpoint(source) as checkpoint:
            # What is wrong with the files is told at once, before seconds are spent on importing torch.
            read_config(checkpoint.side_files)
        self.device = _open_device(gpu)
        if options.verbose:
            _say(f"Loading SafeTensors model: {source}")
        self.engine = _load(source, self.device)
        if options.verbose or gpu is None:
            _say(_backend(self.device))
        if options.verbose:
            config = self.engine.model.config
            _say(f"Architecture: {config.architecture} ({config.num_layers} layers, vocab_size={config.vocab_size})")
            _say(f"Model loaded in {self.engine.load_seconds * 1000:.1f}ms")

    def answer(self, messages: list[ChatMessage]) -> str:
        """Generate the answer to a conversation (with `raw`: to its last message alone), and print it."""
        from reference_engine.generate import GenerationRequest

        options = self.options
        engine = self.engine
        prompt = engine.raw_prompt(messages[-1]["content"]) if options.raw else engine.render(messages).ids
        request = GenerationRequest(prompt, options.max_tokens, options.temperature, options.top_p, options.seed)
        result = engine.infer(request, None if options.json else _write)
        _write(_as_json(self, result) if options.json else "\n")
        if options.verbose:
            seconds, rate = result.inference_seconds, result.tokens_per_second
            _say(f"{len(result.ids)} tokens in {seconds:.2f}s ({rate:.1f} tok/s), finish_reason={result.finish_reason}")
        return result.text


@app.command()
def run(
    source: Source,
    prompt: Annotated[
        str | None, typer.Argument(help="What to answer; without it, all of stdin.", show_default=False)
    ] = None,
    *,
    gpu: Gpu = None,
    max_tokens: MaxTokens = 32,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    system: System = None,
    raw: Raw = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Answer one prompt.

    Example: apr run Qwen2.5-1.5B-Instruct "What is 2+2?" --gpu --max-tokens 16
    """
    with _reported():
        options = Options(max_tokens, temperature, top_p, seed, raw, as_json, verbose)
        if prompt is None and sys.stdin.isatty():
            raise InvalidArgument("prompt", "give one, or pipe it into stdin")
        text = sys.stdin.read() if prompt is None else prompt
        Session(source, gpu, options).answer([*_instruction(system), {"role": "user", "content": text}])


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(help="File to write; .apr or .gguf names the format.", show_default=False)],
) -> None:
    """Write a checkpoint as one APR or GGUF file, values unchanged.

    Example: apr convert Qwen2.5-1.5B-Instruct qwen.apr
    """
    from reference_engine.formats.converting import convert as write

    with _reported():
        write(source, target)


@app.command()
def chat(
    source: Source,
    *,
    gpu: Gpu = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    system: System = None,
    raw: Raw = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Hold a conversation, one line of stdin a turn; works through a pipe as well as on a terminal.

    Example: echo "2+2=" | apr chat model.safetensors --gpu --max-tokens 5

    Commands: /clear forgets the conversation, /system TEXT sets the instruction, /help, /quit.
    """
    with _reported():
        options = Options(max_tokens, temperature, top_p, seed, raw, as_json, verbose)
        _converse(Session(source, gpu, options), _instruction(system))


def _converse(session: Session, messages: list[ChatMessage]) -> None:
    """Turns until end of input; a turn that fails is reported and forgotten, and decides the exit code."""
    failed = 0
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
        raise typer.Exit(failed)


def _lines() -> Iterator[str]:
    """Lines of stdin that hold something, after a prompt if somebody is typing."""
    typed = sys.stdin.isatty()
    while True:
        if typed:
            _say("You: ", end="")
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


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


def _load(source: Path, device: Device) -> Engine:
    from reference_engine.engine import Engine

    return Engine.load(source, device)


def _backend(device: Device) -> str:
    if not device.is_cuda:
        import torch

        return f"Backend: CPU ({torch.get_num_threads()} threads)"
    return f"Backend: GPU ({device.name}, {device.memory()[1] >> 20} MB VRAM)"


def _as_json(session: Session, result: InferenceResult) -> str:
    """The answer as one line of JSON."""
    device = session.device
    fields = {
        "model": str(session.source),
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
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Nobody reads any more; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def main() -> None:
    """Entry point of `apr`."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Text is UTF-8 whatever the locale; what is not, is replaced and not fatal.
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    app()


if __name__ == "__main__":
    main()
