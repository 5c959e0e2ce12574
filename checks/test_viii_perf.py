"""VIII. Performance: from outside, one value a fresh process, with limits of this hardware beside the claims."""

from __future__ import annotations

import statistics

import psutil

from checks.support.growing import grown_by_generations
from checks.support.parity import observe_parity
from checks.support.pool import all_runs, cpu_rates, sample, timed, utilisation_while_decoding
from checks.support.quality import cheapest, loaded_model
from conformance.corpus.geometry import geometry_checkpoint
from conformance.observations import Measured, Sample
from conformance.protocol.messages import Generate
from conformance.trial.stand import Stand

_CONTEXT, _STEPS, _SHORT_CONTEXT = 1000, 16, 16


def test_f_perf_081(stand: Stand) -> None:
    if not stand.needs_gpu("load"):
        return
    values = sample(stand, "load", lambda run: run["load_s"])
    first = all_runs(stand)[0]
    context = {"process_and_device_start_s": first["open_s"], "first_process_s": first["load_s"]}
    stand.observe(Sample(name="load", values=values, unit="s", context=context))


def test_f_perf_082(stand: Stand) -> None:
    if not stand.needs_gpu("first_token"):
        return
    short = sample(stand, "first_token/32", lambda run: run["first_token_32_s"])
    long = sample(stand, "first_token/1000", lambda run: run["first_token_1000_s"])
    first = all_runs(stand)[0]
    for length, values in ((32, short), (1000, long)):
        told = {"first_process_s": first[f"first_token_{length}_s"]}
        stand.observe(Sample(name=f"first_token/{length}", values=values, unit="s", context=told))


def test_f_perf_083(stand: Stand) -> None:
    _observe_rate(stand)


def test_f_perf_084(stand: Stand) -> None:
    _observe_rate(stand)


def _observe_rate(stand: Stand) -> None:
    """Decode-only tokens a second, and that each token was really computed."""
    if not stand.needs_gpu("rate", "not_computed", "same_ids"):
        return
    values = sample(stand, "rate", lambda run: run["decode_rate"])
    weights = all_runs(stand)[0]["weight_bytes"]
    context = {"bytes_per_token": float(weights), "achieved_bytes_per_s": statistics.median(values) * weights}
    stand.observe(Sample(name="rate", values=values, unit="tok/s", context=context))
    stand.equal("not_computed", expected=[], observed=[run.wrong_steps for run in all_runs(stand) if run.wrong_steps])
    stand.equal("same_ids", expected=1, observed=len({tuple(run.ids) for run in all_runs(stand)}), hardening=True)


def test_f_perf_085(stand: Stand) -> None:
    """A cache makes one step at context n far cheaper than the prefill of n; recomputing makes them the same."""
    long = max((case for case in stand.goldens.run.cases), key=lambda case: len(case.prompt_ids))
    prompt = (list(long.prompt_ids) * (_CONTEXT // len(long.prompt_ids) + 1))[:_CONTEXT]
    with loaded_model(stand) as model:
        request = Generate(model.handle, 9, prompt_ids=prompt[:64], ignore_eos=True)
        told = stand.engine.call("generate", request)
        if told.positions is not None:
            stand.equal("positions", expected=64 + 8, observed=told.positions)
        else:
            stand.missing("positions", "the engine does not count positions")
        ratios, controls, times = [], [], []
        for _ in range(5 if stand.gpu else 3):
            prefill = timed(stand.engine, model, prompt, 1)
            step = (timed(stand.engine, model, prompt, 1 + _STEPS) - prefill) / _STEPS
            early = timed(stand.engine, model, prompt[:_SHORT_CONTEXT], 1)
            first = (timed(stand.engine, model, prompt[:_SHORT_CONTEXT], 1 + _STEPS) - early) / _STEPS
            ratios.append(step / prefill)
            controls.append(prefill / max(first, 1e-6))
            times.append((early, first, prefill, step))
    stand.measured("decidable", statistics.median(controls), "prefill of n in steps at context 16")
    names = [f"{kind}@{n}" for n in (_SHORT_CONTEXT, _CONTEXT) for kind in ("prefill_s", "step_s")]
    context = dict(zip(names, map(statistics.median, zip(*times, strict=True)), strict=True))
    ratio, unit = statistics.median(ratios), "step at n / prefill of n"
    stand.observe(Measured(name="recompute_ratio", value=ratio, unit=unit, context=context))


def test_f_perf_086(stand: Stand) -> None:
    if not stand.needs_gpu("peak"):
        return
    runs = all_runs(stand)
    weights = runs[0]["weight_bytes"]
    stand.measured("peak", max(run["peak_bytes"] for run in runs), "B", note=f"weights {weights} B")


def test_f_perf_087(stand: Stand) -> None:
    golden = cheapest(stand.goldens.run.cases)[0]
    with stand.opened_device() as device, loaded_model(stand) as model:
        tokens = 128 if stand.gpu else 8
        seen, lengths = grown_by_generations(stand, model, list(golden.prompt_ids), tokens, device.handle)
        stand.observe(seen)
        stand.equal("generations/lengths", expected=[tokens], observed=sorted(set(lengths)))


def test_f_perf_088(stand: Stand) -> None:
    if not stand.needs_gpu("utilisation", "seconds"):
        return
    stand.weights = "geometry"
    samples, seconds, rate = utilisation_while_decoding(stand)
    stand.measured("seconds", seconds, "s", note=f"{rate:.0f} tok/s while polled")
    stand.measured("utilisation", statistics.median(samples), "%", note=f"{len(samples)} samples")


def test_f_perf_089(stand: Stand) -> None:
    if not stand.needs_gpu("ratio_to_cpu"):
        return
    slow = cpu_rates(stand)
    values = sample(stand, "ratio_to_cpu", lambda run: run["decode_rate"] / max(slow))
    context = {"cpu_tok_s": max(slow), "cpu_cores": float(psutil.cpu_count() or 1)}
    stand.observe(Sample(name="ratio_to_cpu", values=values, unit="x", context=context))


def test_f_perf_090(stand: Stand) -> None:
    if not stand.needs_gpu("ratio_to_peer"):
        return
    stand.weights = "geometry"
    observe_parity(stand, geometry_checkpoint("F32"), device=stand.model_device)
