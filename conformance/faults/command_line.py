"""A command line that does something other than it was told, or says it in the wrong place."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from conformance.faults.planting import Plant, fault


def _answers(plant: Plant, change: Callable[[str, bool], str]) -> None:
    """Change what is written to standard output: `change(text, whether it is JSON)`."""
    from reference_engine import cli

    def changed(original: Any, text: str) -> None:
        original(change(text, text.startswith("{")))

    plant.replace(cli, "_write", changed)


def _options(plant: Plant, **values: Any) -> None:
    """Give every session these options, whatever was asked for."""
    from reference_engine import cli

    def opened(original: Any, session: Any, options: Any) -> None:
        vars(options).update(values)
        original(session, options)

    plant.replace(cli.Session, "__init__", opened)


@fault(expects={"F-INT-097": "json_answer", "F-INT-098": "used_gpu", "F-INT-100": "answer"}, blast=("int",))
def log_on_stdout(plant: Plant) -> None:
    """What is loaded is told on standard output."""
    from reference_engine import cli

    def loud(original: Any, session: Any, *arguments: Any) -> None:
        sys.stdout.write("INFO loading model\n")
        sys.stdout.flush()
        original(session, *arguments)

    plant.replace(cli.Session, "__init__", loud)


@fault(expects={"F-INT-097": "json_answer", "F-INT-098": "used_gpu", "F-INT-100": "answer"}, blast=("F-INT-099",))
def json_flag_ignored(plant: Plant) -> None:
    """`--json` changes nothing."""
    _options(plant, json=False)


@fault(expects={"F-INT-097": "json_answer", "F-INT-098": "used_gpu", "F-INT-100": "answer"})
def json_with_single_quotes(plant: Plant) -> None:
    """The JSON is Python's own spelling of a dictionary."""
    _answers(plant, lambda text, structured: f"{json.loads(text)!r}\n" if structured else text)


@fault(expects={"F-INT-097": "json_answer"}, blast=("F-INT-100",))
def json_without_the_text(plant: Plant) -> None:
    """The JSON has every field but the answer."""

    def without(text: str, structured: bool) -> str:
        return json.dumps({**json.loads(text), "text": ""}) + "\n" if structured else text

    _answers(plant, without)


@fault(expects={"F-INT-099": "backend_line", "F-INT-100": "backend_line"}, seen_in="aprender#2401, #3541")
def verbose_flag_ignored(plant: Plant) -> None:
    """`--verbose` changes nothing."""
    _options(plant, verbose=False)


@fault(expects={"F-INT-099": "backend_line"})
def backend_told_twice(plant: Plant) -> None:
    """The line that names the processor is printed before and after loading."""
    from reference_engine import cli

    plant.replace(cli, "_backend", lambda original, device: f"{original(device)}\n{original(device)}")


@fault(expects={"F-INT-099": "backend_line"}, blast=("F-INT-100",))
def backend_told_on_request_only(plant: Plant) -> None:
    """The line names the processor in words of its own."""
    from reference_engine import cli

    plant.replace(cli, "_backend", lambda _original, _device: "running")


@fault(expects={"F-INT-100": "exit_status"}, seen_in="aprender contract CPU-GPU-003")
def gpu_falls_back_to_the_cpu(plant: Plant) -> None:
    """`--gpu` without a usable GPU answers from the CPU and says nothing."""
    from reference_engine import cli, errors

    def falling(original: Any, gpu: bool | None) -> Any:
        try:
            return original(gpu)
        except errors.DeviceNotFound:
            return original(False)

    plant.replace(cli, "_open_device", falling)


@fault(expects={"F-INT-097": "status", "F-INT-100": "answer"}, blast=("int",), seen_in="aprender#614, #607")
def no_gpu_flag_ignored(plant: Plant) -> None:
    """`--no-gpu` opens the GPU all the same, and fails where there is none."""
    from reference_engine import cli

    plant.replace(cli, "_open_device", lambda original, _gpu: original(True))


@fault(expects={"F-INT-097": "answer"}, blast=("int",))
def max_tokens_ignored(plant: Plant) -> None:
    """One token is generated, however many are asked for."""
    _options(plant, max_tokens=1)


@fault(expects={"F-INT-097": "answer"}, blast=("int",), seen_in="apr qa arithmetic oracle")
def prompt_printed(plant: Plant) -> None:
    """The answer begins with the prompt."""
    from reference_engine import cli

    def echoing(original: Any, session: Any, messages: Any) -> Any:
        if not session.options.json:
            sys.stdout.write(messages[-1]["content"] + "\n")
        return original(session, messages)

    plant.replace(cli.Session, "answer", echoing)


@fault(expects={"F-INT-097": "status"}, blast=("int",))
def success_ends_with_one(plant: Plant) -> None:
    """A command that has answered ends with 1."""
    from reference_engine import cli

    def failing(original: Any, session: Any, messages: Any) -> Any:
        text = original(session, messages)
        if not session.options.json:
            sys.exit(1)
        return text

    plant.replace(cli.Session, "answer", failing)


@fault(expects={"F-INT-097": "broken_pipe"})
def broken_pipe_shows_a_traceback(plant: Plant) -> None:
    """A reader who has gone away ends the command with a traceback."""
    from reference_engine import cli

    def unforgiving(original: Any, text: str) -> None:
        try:
            original(text)
        except BrokenPipeError as error:
            raise RuntimeError("cannot write the answer") from error

    plant.replace(cli, "_write", unforgiving)


@fault(expects={"F-INT-096": "pipe_answer"})
def first_line_of_a_pipe_lost(plant: Plant) -> None:
    """The first line of a pipe is read and dropped, as if it were a greeting."""
    from reference_engine import cli

    def later(original: Any) -> Any:
        lines = original()
        if not sys.stdin.isatty():
            next(lines, None)
        yield from lines

    plant.replace(cli, "_lines", later)


@fault(expects={"F-INT-096": "terminal_answers"})
def one_turn_only(plant: Plant) -> None:
    """A conversation ends after its first answer."""
    from reference_engine import cli

    def once(original: Any) -> Any:
        yield next(original())

    plant.replace(cli, "_lines", once)


@fault(expects={"F-INT-096": "eof_status"}, crash=False, call_s=60.0)
def end_of_input_ignored(plant: Plant) -> None:
    """At the end of its input a conversation waits for more."""
    from reference_engine import cli

    def waiting(original: Any) -> Any:
        yield from original()
        if sys.stdin.isatty():
            signal.pause()

    plant.replace(cli, "_lines", waiting)


@fault(expects={"F-INT-096": "eof_status"})
def end_of_input_is_an_error(plant: Plant) -> None:
    """The end of input ends a conversation with 1."""
    from reference_engine import cli

    def complaining(original: Any) -> Any:
        yield from original()
        if sys.stdin.isatty():
            sys.exit(1)

    plant.replace(cli, "_lines", complaining)


@fault(expects={"F-INT-096": "interrupt_ends"})
def interrupt_ignored(plant: Plant) -> None:
    """Ctrl-C is ignored."""
    from reference_engine import cli

    def deaf(original: Any) -> Any:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield from original()

    plant.replace(cli, "_lines", deaf)


@fault(expects={"F-INT-096": "interrupt_ends"})
def interrupt_shows_a_traceback(plant: Plant) -> None:
    """Ctrl-C ends a conversation with a traceback."""
    from reference_engine import cli

    def bare(original: Any) -> Any:
        try:
            yield from original()
        except KeyboardInterrupt as error:
            raise RuntimeError("interrupted") from error

    plant.replace(cli, "_lines", bare)


@fault(expects={"F-INT-096": "terminal_answers"})
def output_held_back(plant: Plant) -> None:
    """Answers are written out when the conversation is over."""
    from reference_engine import cli

    plant.replace(cli, "_write", lambda _original, text: sys.stdout.write(text))
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1 << 20, encoding="utf-8")


@fault(expects={"F-INT-096": "pipe_answer"})
def system_text_answered(plant: Plant) -> None:
    """Each answer is followed by a remark of the program's own, on standard output."""
    from reference_engine import cli

    def remarking(original: Any, session: Any, messages: Any) -> Any:
        text = original(session, messages)
        if not session.options.json:
            sys.stdout.write("[done]\n")
        return text

    plant.replace(cli.Session, "answer", remarking)


@fault(expects={"F-INT-097": "json_answer"}, blast=("int",))
def json_put_together_by_hand(plant: Plant) -> None:
    """Texts stand in the JSON as they are: a quotation mark ends them."""

    def spelled(value: Any) -> str:
        return f'"{value}"' if isinstance(value, str) else json.dumps(value)

    def by_hand(text: str, structured: bool) -> str:
        if not structured:
            return text
        return "{" + ", ".join(f'"{name}": {spelled(value)}' for name, value in json.loads(text).items()) + "}\n"

    _answers(plant, by_hand)


@fault(expects={"F-INT-097": "json_answer"}, blast=("int",))
def json_with_nan(plant: Plant) -> None:
    """A rate that cannot be computed is NaN, which is a number to Python and none to JSON."""

    def without_rate(text: str, structured: bool) -> str:
        return json.dumps(json.loads(text) | {"tok_per_sec": float("nan")}) + "\n" if structured else text

    _answers(plant, without_rate)


@fault(expects={"F-INT-097": "answer"}, blast=("int",), seen_in="exo#1691, ferrox#124")
def stream_splits_characters(plant: Plant) -> None:
    """An answer that is printed as it comes is decoded token by token."""
    from reference_engine.tokenizer import Tokenizer

    plant.replace(Tokenizer, "stream", lambda _original, tokenizer: lambda token: tokenizer._backend.decode([token]))


@fault(expects={"F-INT-096": "pipe_answer"})
def turns_forgotten(plant: Plant) -> None:
    """Each line of a conversation is answered as if it were the first."""
    from reference_engine import cli

    plant.replace(cli.Session, "answer", lambda original, session, messages: original(session, messages[-1:]))
