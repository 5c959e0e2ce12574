"""X. Integration: the command line as its users run it, and which processor really answered."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack

from checks.support.command_line import (
    Step,
    answer_of,
    arguments,
    begun,
    cli,
    device_flags,
    enough_for,
    on_terminal,
    run_command,
)
from checks.support.errors import observe_clear_failure
from checks.support.quality import as_messages, beyond_ascii_golden, chat_golden
from conformance.trial.stand import Stand

PROMPT_READ_S = 0.5


def test_f_int_096(stand: Stand) -> None:
    golden, prompt = chat_golden(stand)
    command = arguments(stand, cli(stand).chat, model=stand.model_directory, max_tokens=golden.max_tokens)
    command += device_flags(stand)
    piped = run_command(stand, command, stdin=f"{prompt}\n".encode())
    stand.attach_text("pipe.txt", f"{piped.stdout}\n---\n{piped.stderr}")
    stand.equal("pipe_status", expected=0, observed=piped.status, note=piped.first_error)
    stand.equal("pipe_answer", expected=golden.text.strip(), observed=answer_of(stand, piped).strip())
    _observe_second_turn(stand)
    first = re.escape(golden.text.strip().splitlines()[0])
    asked = f"{prompt}\r".encode()
    limit = enough_for(piped)
    talked = on_terminal(stand, command, [Step(r"\S", asked), Step(first, asked), Step(first, b"\x04")], timeout=limit)
    stand.attach_text("terminal.txt", talked.stdout)
    stand.equal("terminal_answers", expected=2, observed=len(re.findall(first, talked.stdout)))
    stand.equal("eof_status", expected=0, observed=talked.status)
    stopped = on_terminal(stand, command, [Step(r"\S", b"\x03", pause=PROMPT_READ_S)], timeout=limit)
    stand.attach_text("interrupted.txt", stopped.stdout)
    stand.equal("interrupt_ends", expected=True, observed=stopped.status is not None and stopped.trace is None)


def _observe_second_turn(stand: Stand) -> None:
    """Observe `pipe_answer/second turn`: what was told in the first line is known in the last; hardening.

    Only where the program answers the lines before as the golden conversation has it: then the last answer is golden.
    """
    for case in stand.goldens.for_row("F-QUAL-080"):
        turns = as_messages(case)
        said = [turn.content for turn in turns if turn.role == "user"]
        replies = [turn.content for turn in turns if turn.role == "assistant"]
        if len(said) + len(replies) != len(turns) or not replies or not all(map(_can_be_typed, said)):
            continue
        command = arguments(stand, cli(stand).chat, model=stand.model_directory, max_tokens=case.max_tokens)
        lines = "".join(f"{line}\n" for line in said).encode()
        told = answer_of(stand, run_command(stand, [*command, *device_flags(stand)], stdin=lines))
        before, found, last = told.partition(replies[-1])
        if found and all(reply in before for reply in replies[:-1]):
            stand.equal("pipe_answer/second turn", expected=case.text.strip(), observed=last.strip(), hardening=True)
            return


def _can_be_typed(line: str) -> bool:
    """Whether a chat program reads it as one turn: no command, no blank line, nothing that it may trim."""
    return bool(line) and line == line.strip() and "\n" not in line and not line.startswith("/")


def test_f_int_097(stand: Stand) -> None:
    golden, prompt = chat_golden(stand)
    command = arguments(stand, cli(stand).run, model=stand.model_directory, prompt=prompt, max_tokens=golden.max_tokens)
    command += device_flags(stand)
    into_nothing = ["/bin/sh", "-c", '"$@" | true; true', "sh", *command]
    each = [command, [*command, *cli(stand).json], into_nothing]
    with ExitStack() as stack:
        running = [stack.enter_context(begun(stand, one)) for one in each]
        plain, structured, closed = [one.result() for one in running]
    stand.equal("status", expected=0, observed=plain.status, note=plain.first_error)
    stand.equal("answer", expected=golden.text.strip(), observed=answer_of(stand, plain).strip())
    stand.attach_text("run.json", structured.stdout)
    stand.equal("json_answer", expected=golden.text.strip(), observed=_field(structured.stdout, cli(stand).text_field))
    _observe_hard_output(stand)
    stand.equal("broken_pipe", expected=None, observed=closed.trace)


def _observe_hard_output(stand: Stand) -> None:
    """Observe an answer in characters of several bytes, as text and in JSON, and JSON about a path that has quotes.

    Where no golden answer has such characters, or the program does not take such a path, there is nothing to see.
    """
    quoted = stand.directory / 'a "quoted" path'
    quoted.symlink_to(stand.model_directory)
    golden, prompt = chat_golden(stand)
    asked = {"quoted path": (quoted, prompt, golden)}
    if beyond := beyond_ascii_golden(stand):
        asked["beyond ASCII"] = (stand.model_directory, as_messages(beyond)[0].content, beyond)
    for name, (model, said, case) in asked.items():
        command = arguments(stand, cli(stand).run, model=model, prompt=said, max_tokens=case.max_tokens)
        command += device_flags(stand)
        structured = run_command(stand, [*command, *cli(stand).json])
        observed = _field(structured.stdout, cli(stand).text_field)
        stand.equal(f"json_answer/{name}", expected=case.text.strip(), observed=observed, hardening=True)
        if case is not golden:
            plain = answer_of(stand, run_command(stand, command)).strip()
            stand.equal(f"answer/{name}", expected=case.text.strip(), observed=plain)


def test_f_int_098(stand: Stand) -> None:
    golden, prompt = chat_golden(stand)
    command = arguments(stand, cli(stand).run, model=stand.model_directory, prompt=prompt, max_tokens=golden.max_tokens)
    output = run_command(stand, [*command, *device_flags(stand), *cli(stand).json], watch_device=stand.gpu)
    stand.attach_text("run.json", output.stdout)
    stand.equal("used_gpu", expected=stand.gpu, observed=_field(output.stdout, cli(stand).used_gpu_field))
    if stand.needs_gpu("held_the_weights"):
        weights = stand.plan.model.nbytes
        stand.equal("held_the_weights", expected=True, observed=(output.device_bytes or 0) >= weights)


def test_f_int_099(stand: Stand) -> None:
    golden, prompt = chat_golden(stand)
    command = arguments(stand, cli(stand).run, model=stand.model_directory, prompt=prompt, max_tokens=golden.max_tokens)
    output = run_command(stand, [*command, *device_flags(stand), *cli(stand).verbose], watch_device=stand.gpu)
    stand.attach_text("verbose.txt", output.stderr)
    pattern = cli(stand).backend_gpu if stand.gpu else cli(stand).backend_cpu
    lines = (output.stdout + "\n" + output.stderr).splitlines()
    stand.equal("backend_line", expected=1, observed=sum(re.search(pattern, line) is not None for line in lines))
    stand.equal("answer_alone", expected=golden.text.strip(), observed=answer_of(stand, output).strip(), hardening=True)
    if stand.needs_gpu("held_the_weights"):
        weights = stand.plan.model.nbytes
        stand.equal("held_the_weights", expected=True, observed=(output.device_bytes or 0) >= weights)


def test_f_int_100(stand: Stand) -> None:
    golden, prompt = chat_golden(stand)
    command = arguments(stand, cli(stand).run, model=stand.model_directory, prompt=prompt, max_tokens=golden.max_tokens)
    flags = (*cli(stand).cpu, *cli(stand).json, *cli(stand).verbose)
    with begun(stand, [*command, *cli(stand).gpu], env={"CUDA_VISIBLE_DEVICES": ""}) as without_device:
        quiet = run_command(stand, [*command, *flags], watch_device=stand.gpu)
        denied = without_device.result()
    stand.equal("answer", expected=golden.text.strip(), observed=_field(quiet.stdout, cli(stand).text_field))
    stand.equal("says_cpu", expected=False, observed=_field(quiet.stdout, cli(stand).used_gpu_field))
    lines = quiet.stderr.splitlines()
    stand.equal("backend_line", expected=True, observed=any(re.search(cli(stand).backend_cpu, line) for line in lines))
    observe_clear_failure(stand, "gpu_without_device", denied)
    if stand.needs_gpu("no_context"):
        stand.equal("no_context", expected=0, observed=quiet.device_bytes or 0)


def _field(text: str, name: str) -> object:
    try:
        found = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        return f"not JSON: {error}"
    value = found.get(name) if isinstance(found, dict) else None
    return value.strip() if isinstance(value, str) else value


def _no_number(word: str) -> float:
    """Refuse what Python reads and JSON does not have."""
    raise ValueError(f"{word} is not a JSON number")
