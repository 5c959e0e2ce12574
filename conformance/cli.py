"""The command line: what puts an engine on trial; `cli_records` has what reads stored records."""

from __future__ import annotations

import gc
import os
import secrets
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conformance import cli_calibration, cli_compare, cli_done, cli_matrix, cli_records, cli_severity
from conformance.cli_support import end, open_streams, or_unwritable, or_usage, usage
from conformance.verdicts import ExitCode

if TYPE_CHECKING:
    from conformance.trial.runner import Options

Profile = Literal["default", "long"]
_SEED_DIGITS = 15
_FEW_LOOKS_FOR_GARBAGE = 50_000

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Put a GPU inference engine on trial: 100 severe tests, one record, one scorecard.\n\n"
    "Exit codes: 0 gate open, 1 falsified, 2 usage, 3 undecided or untested, 4 the harness itself failed.",
)

corpus = typer.Typer(no_args_is_help=True, help="The corpus of SafeTensors files.")
app.add_typer(corpus, name="corpus")
cli_records.add_to(app)
cli_compare.add_to(app)
cli_severity.add_to(app)
cli_calibration.add_to(app)
cli_matrix.add_to(app)
cli_done.add_to(app)

EngineOption = Annotated[
    str, typer.Option("--engine", help="A shipped engine (`falsify engines`) or a manifest's path.")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="fixture, random, smollm2, or a checkpoint's path. Default: the one that is shipped."),
]


def main() -> None:
    """Entry point of `falsify`; what the user got wrong is one line and exit code 2, what we got wrong is 4."""
    gc.set_threshold(_FEW_LOOKS_FOR_GARBAGE)  # importing and rendering leave little, and looking takes long
    open_streams()
    try:
        app(prog_name="falsify")
    except Exception as error:  # noqa: BLE001  Python's own exit code 1 would read as "falsified"
        traceback.print_exc()
        end(f"the harness failed: {type(error).__name__}: {error}", ExitCode.HARNESS)


@app.command()
def run(  # noqa: PLR0917  one parameter an option
    engine: EngineOption = "reference",
    model: ModelOption = None,
    peer: Annotated[
        str | None,
        typer.Option(help="Whom F-PERF-090 compares with: a shipped engine or a manifest. Default: llama_cpp."),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option("-k", metavar="WORD", help="Rows whose id contains this: f_mem, F-MEM-029; may be repeated."),
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(help="build, cuda, mem, parse, dtype, load, qual, perf, err or int; may be repeated."),
    ] = None,
    seed: Annotated[str, typer.Option(help="A number, or `random`, which also shuffles the rows; recorded.")] = "0",
    out: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("falsify-run"),
    workers: Annotated[int, typer.Option("-n", "--workers", min=1, help="Processes for untimed rows.")] = 2,
    profile: Annotated[str, typer.Option(help="Examples a fault class: default (30) or long (300).")] = "default",
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Fail instead of rehearsing on the CPU.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Hide all GPUs and rehearse on the CPU, also where there are some.")
    ] = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Try only part I of N; `falsify merge` joins the records.")
    ] = None,
    gate: cli_records.GateOption = None,
) -> None:
    """Run the trial of an engine; leave a record, a scorecard and JUnit XML in a new directory.

    Without an NVIDIA device this is a rehearsal on the CPU: it shows nothing about the GPU, and says so.

    Examples:  falsify run   |   falsify run -k f_mem   |   falsify run --engine my-engine.toml --model ./checkpoint
    """
    from conformance.probes.nvml import NONE, VISIBLE  # noqa: PLC0415  --help must be fast
    from conformance.trial.runner import Options  # noqa: PLC0415
    from conformance.trial.sharding import parse_part  # noqa: PLC0415

    options = Options(
        engine=engine,
        model=model,
        peer=peer,
        words=tuple(select or ()),
        sections=tuple(section or ()),
        seed=_seed(seed),
        shuffle=seed == "random",
        require_gpu=require_gpu,
        rehearse=rehearse,
        out=out,
        workers=workers,
        profile=_profile(profile),
        command=("falsify", *sys.argv[1:]),
        part=None if shard is None else or_usage(lambda: parse_part(shard)),
    )
    if rehearse:
        if require_gpu:
            usage("--rehearse and --require-gpu exclude each other")
        os.environ[VISIBLE] = NONE
    if gate and (select or section or shard):
        usage("--gate speaks of a whole record; it does not go with -k, --section or --shard")
    raise typer.Exit(int(_run(options, gate)))


def _run(options: Options, gate: Path | None) -> ExitCode:
    from conformance.catalogue import load_catalogue  # noqa: PLC0415
    from conformance.gate.applied import apply_gate  # noqa: PLC0415
    from conformance.gate.policy import load_policy  # noqa: PLC0415
    from conformance.trial.runner import prepare, run_trial  # noqa: PLC0415
    from conformance.trial.signals import stoppable  # noqa: PLC0415
    from reports.gate import paragraph  # noqa: PLC0415
    from reports.progress import open_progress  # noqa: PLC0415
    from reports.written import Attachments, write_reports  # noqa: PLC0415

    policy = or_usage(lambda: load_policy(gate, load_catalogue())) if gate else None
    with stoppable() as stop:
        ready = stop.attempt(lambda: or_usage(lambda: prepare(options)), None)
        if ready is None:
            end("interrupted before the first row", ExitCode.UNDECIDED)
        with open_progress(load_catalogue(), len(ready.plan.rows)) as progress:
            trial = or_unwritable(lambda: run_trial(ready, options.workers, progress, stop))
            decision = apply_gate(trial.record, policy) if policy else None
            progress.finish(trial.record, write_reports(trial.record, trial.directory, Attachments(decision=decision)))
    if decision is not None:
        typer.echo(paragraph(decision))
        return decision.code
    footer = trial.record.footer
    return footer.exit_code if footer else ExitCode.HARNESS


@app.command()
def merge(
    shards: Annotated[list[Path], typer.Argument(metavar="DIR…", help="The run directories of all shards.")],
    out: Annotated[Path, typer.Option(help="Where the merged run directory goes.")] = Path("falsify-run"),
) -> None:
    """Join the shards of one trial (`falsify run --shard I/N`) into one record with its reports.

    Fails closed: a shard that is missing, truncated, there twice, or of another engine, model, catalogue, thresholds
    or machine is named, and nothing is merged (exit code 4). Otherwise the exit code is that of the whole trial.
    """
    from conformance.trial.merging import BrokenShard  # noqa: PLC0415
    from reports.merged import write_merged  # noqa: PLC0415

    try:
        code = or_usage(lambda: write_merged(shards, out, ("falsify", *sys.argv[1:])))
    except BrokenShard as error:
        end(str(error), ExitCode.HARNESS)
    raise typer.Exit(int(code))


@app.command()
def smoke(engine: EngineOption = "reference") -> None:
    """Say what is wrong with an engine's adapter, before any check runs."""
    import tempfile  # noqa: PLC0415

    from conformance.manifest import load_manifest, require_installed  # noqa: PLC0415
    from conformance.smoke import smoke as smoke_steps  # noqa: PLC0415
    from conformance.trial.launching import launch_in  # noqa: PLC0415

    manifest = or_usage(lambda: load_manifest(engine))
    or_usage(lambda: require_installed(manifest))
    with tempfile.TemporaryDirectory(prefix="falsify-smoke-") as directory:
        steps = smoke_steps(or_usage(lambda: launch_in(manifest, Path(directory))))
    for step in steps:
        typer.echo(f"{'ok  ' if step.ok else 'FAIL'}  {step.name}: {step.detail}")
        if not step.ok:
            typer.echo(f"      {step.advice}")
    raise typer.Exit(int(ExitCode.OPEN if steps and all(step.ok for step in steps) else ExitCode.FALSIFIED))


@app.command()
def engines() -> None:
    """List the engines whose manifests come with the project."""
    from conformance.manifest import known_engines, load_manifest  # noqa: PLC0415

    for name in known_engines():
        typer.echo(f"{name}\t{load_manifest(name).path}")


@app.command()
def golden(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint directory with config and tokenizer.")],
    dtype: Annotated[
        list[str] | None, typer.Option(help="Compute dtype: F32 (default), F16 or BF16; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the goldens go. Default: beside the weights.")] = None,
) -> None:
    """Let transformers answer the default prompts with a checkpoint, so that engines can be held against it.

    Needs the extra `golden`. Behavioural rows count only the prompts that this run itself answers.

    Example:  falsify golden ./checkpoint && falsify run --model ./checkpoint
    """
    from conformance.corpus import golden_maker as maker  # noqa: PLC0415
    from conformance.corpus.models import resolve_model  # noqa: PLC0415

    model = or_usage(lambda: resolve_model(str(path)))
    for name in dtype or ["F32"]:
        if name not in maker.DTYPES:
            usage(f"--dtype {name!r}: one of {', '.join(maker.DTYPES)}")
        typer.echo(f"{name}: transformers answers on the CPU…", err=True)
        try:
            made = maker.make_goldens(model.directory, out or model.directory, dtype=name)
        except (
            maker.TransformersMissing, maker.TokenizersDisagree, maker.TokenizerMissing, maker.PromptTooLong,
        ) as error:  # fmt: skip
            usage(str(error))
        answered = sum(case.answered for case in made.run.cases)
        typer.echo(f"{name}: {answered} of {len(made.run.cases)} prompts answered, in {out or model.directory}")


@corpus.command()
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    seed: Annotated[int, typer.Option(min=0, help="Which examples; the same seed writes the same files.")] = 0,
) -> None:
    """Write the corpus as files with verdicts.json, for engines in any language and without Python."""
    from conformance.corpus.safetensors.export import export as export_corpus  # noqa: PLC0415

    verdicts = or_usage(lambda: export_corpus(directory, seed))
    typer.echo(f"{len(verdicts.files)} files, {len(verdicts.controls)} valid ones beside them: {directory}")


@app.command()
def replay(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH…", exists=True, help="Kept counter-examples, or directories of them.")
    ],
    engine: EngineOption = "reference",
) -> None:
    """Put kept counter-examples to an engine again: FIXED, FAILED, or ERROR where nothing could be replayed.

    Exit codes: 0 all fixed, 1 one failed, 4 one could not be replayed.
    """
    from conformance.corpus.safetensors.replay import Answer, replay_all  # noqa: PLC0415
    from conformance.manifest import load_manifest  # noqa: PLC0415

    manifest = or_usage(lambda: load_manifest(engine))
    replayed = or_usage(lambda: replay_all(paths, manifest))
    for one in replayed:
        typer.echo(f"{one.answer:6} {one.path}  {one.detail}")
    answers = {one.answer for one in replayed}
    if not answers:
        usage("no kept counter-example lies there")
    code = ExitCode.HARNESS if Answer.ERROR in answers else ExitCode.OPEN
    raise typer.Exit(int(ExitCode.FALSIFIED if Answer.FAILED in answers else code))


def _seed(text: str) -> int:
    if text == "random":
        return secrets.randbits(32)
    if not text.isdecimal() or len(text) > _SEED_DIGITS:
        usage(f"--seed {text!r}: a whole number from 0 of at most {_SEED_DIGITS} digits, or `random`")
    return int(text)


def _profile(text: str) -> Profile:
    if text == "default":
        return "default"
    if text == "long":
        return "long"
    return usage(f"--profile {text!r}: default or long")
