"""The result of the scale benchmark → its page; a part that was not shown is told as that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_MIB = 1 << 20
_HEAD = """# How the harness grows

Made of `scale.json` by `python benchmarks/scale.py --json docs/results/scale.json`; a test compares. Processor time is
that of the harness itself and hardly depends on what else runs; wall time does, and each part says how loaded the
machine was.
"""


def page(result: dict[str, Any]) -> str:
    """The page in Markdown."""
    sections = [render(result[name]) if _shown(result, name) else _absent(title) for name, title, render in _SECTIONS]
    return "\n".join([_HEAD, *sections]).rstrip() + "\n"


def _shown(result: dict[str, Any], name: str) -> bool:
    return name in result and not str(result[name].get("verdict", "")).startswith("not shown")


def _absent(title: str) -> str:
    return f"## {title}\n\nNot shown.\n"


def _machine(part: dict[str, Any]) -> str:
    machine = part["machine"]
    load = machine["load_average"][1]
    first = ", of processes that this one came before" if machine.get("nice", 0) < 0 else ""
    cores = f"{machine['cpu']['cores']} cores ({machine['cpu']['model']})"
    return f"{cores}, load average {load:.1f} over five minutes{first}."


def _table(heads: list[str], lines: Sequence[Sequence[object]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join("| " + " | ".join(str(value) for value in row) + " |" for row in rows) + "\n"


def _rehearsal(part: dict[str, Any]) -> str:
    heads = ["workers", "seconds", "rows at one time", "timed rows disturbed", "rows tried"]
    lines = [[places, *_fared(run)] for places, run in part["workers"].items()]
    agreed = "No verdict differs" if not part["differing"] else f"Verdicts differ: {'; '.join(part['differing'])}"
    return (
        f"## {_REHEARSAL}\n\n{_machine(part)} Engines: {', '.join(part['engines'])}; "
        f"models: {', '.join(part['models'])}; rows whose id has {', '.join(part['rows'])} in it, rehearsed.\n\n"
        + _table(heads, lines)
        + f"\nOne worker takes {part['speed_up']} times as long as two. {agreed}.\n"
    )


def _fared(run: dict[str, Any]) -> list[object]:
    tried = sum(cell["rows_tried"] for cell in run["cells"])
    return [run["wall_s"], run["most_rows_at_one_time"], len(run["disturbed"]), tried]


def _cost(part: dict[str, Any]) -> str:
    lines = [
        ["a call of the protocol (ping)", part["protocol_call_ms"]],
        ["judging a row", part["judge_row_ms"]],
        ["encoding a row's line", part["encode_row_ms"]],
        ["recording a row (encoded, written)", part["record_row_ms"]],
        ["reading a row back", part["read_row_ms"]],
        ["a trial's reports, all of them", part["reports_trial_ms"]],
        ["a trial of one row that does nothing, all processes", part["trial_of_one_row"]["cpu_s"] * 1000],
    ]
    return f"## {_COST}\n\n{_machine(part)}\n\n" + _table(["what", "processor ms"], lines)


def _growth(part: dict[str, Any]) -> str:
    steps = list(part["sizes"][0]["cpu_s"])
    lines = [
        [size["cells"], *(size["cpu_s"][step] for step in steps), size["cpu_ms_a_cell"], size["peak_bytes"] // _MIB,
         round(size["page_bytes"] / 1e6, 2)]
        for size in part["sizes"]
    ]  # fmt: skip
    profile = part["profile"]
    spent = [[f"`{each['function']}`", each["calls"], f"{each['share']:.1%}"] for each in profile]
    heads = ["cells", *(f"{step}, s" for step in steps), "ms a cell", "peak, MiB", "page, MB"]
    return (
        f"## {_GROWTH}\n\n{_machine(part)} Simulated trials: each writes and settles a record of "
        "100 rows. Processor time:\n\n"
        + _table(heads, lines)
        + f"\nWhat dominates at {part['profile_of']} cells, by time in the function itself:\n\n"
        + _table(["function", "calls", "share"], spent)
    )


def _records(part: dict[str, Any]) -> str:
    lines = [
        [name, part[name]["wall_s"], part[name]["cpu_s"], part[name]["peak_bytes"] // _MIB]
        for name in ("index", "summary", "compare", "search")
    ]
    limits = part["limits"]
    return (
        f"## {_RECORDS}\n\n{_machine(part)} {part['records']} records of {part['record_bytes'] // 1000} kB; "
        f"their index takes {part['index_bytes'] / 1e6:.1f} MB. Each line is a whole process; the first "
        "reads every record once and answers too.\n\n"
        + _table(["what", "seconds", "processor s", "largest process, MiB"], lines)
        + f"\nAt most {limits['wall_s']:.0f} s and {limits['peak_bytes'] // _MIB} MiB for each: "
        + f"{part['verdict']}.\n"
    )


def _devices(part: dict[str, Any]) -> str:
    rows = part["rows"]
    heads = ["rows", "devices used", "cells", "seconds of untimed rows", "rows at one time", "timed rows disturbed"]
    lines = [
        [what, _used(part["parts"][name]), len(part["parts"][name]["cells"]), part["parts"][name]["untimed_rows_s"],
         part["parts"][name]["most_rows_at_one_time"], len(part["parts"][name]["disturbed"]),
         len(part["parts"][name]["tenants"])]
        for name, what in (("one", "untimed"), ("two", "untimed"), ("timed", "untimed, timed, of the processor"))
    ]  # fmt: skip
    return (
        f"## {_DEVICES}\n\n{_machine(part)} No host with two GPUs was to be had. All of the harness is real here; a "
        "library in NVML's place lists the devices, and an engine sleeps "
        f"{part['seconds_a_call']} s over every call. Untimed rows: {', '.join((*rows['untimed'], *rows['leak']))}, of "
        f"which {', '.join(rows['leak'])} look for leaks; timed, or in need of all memory: "
        f"{', '.join(rows['timed'])}; of the processor: {', '.join(rows['cpu'])}.\n\n"
        + _table([*heads, "rows that shared a device"], lines)
        + f"\nUntimed rows on two devices against one, at most {part['target']} of the time: {part['verdict']}.\n"
    )


def _used(run: dict[str, Any]) -> int:
    return len({device for cell in run["cells"] for device in cell["devices"]})


_REHEARSAL, _COST = "Four engines, two models, one worker and two", "What a row costs the harness"
_GROWTH, _RECORDS = "To 10,000 cells", "10,000 records"
_DEVICES = "Two devices, simulated"
_SECTIONS: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
    ("rehearsal", _REHEARSAL, _rehearsal),
    ("devices", _DEVICES, _devices),
    ("cost", _COST, _cost),
    ("growth", _GROWTH, _growth),
    ("records", _RECORDS, _records),
]
