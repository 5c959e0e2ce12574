"""Time per token against context, on two logarithmic axes, with both hypotheses drawn.

With a KV cache one more token costs the same at any context; without one it costs a prefill of the whole context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.svg import Scale, document, dot, label, line, path, rect

Points = Sequence[tuple[float, float]]

WIDTH, _HEIGHT = 640.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 8.0, 470.0, 16.0, 176.0
_ROOM = 1.5


def scaling(steps: Points, prefills: Points) -> str:
    """An SVG of (context, seconds) points: decode steps as dots, prefills as squares, and the two hypotheses."""
    contexts = [n for n, _ in (*steps, *prefills)]
    seconds = [t for _, t in (*steps, *prefills)]
    x = Scale(math.log(min(contexts)), math.log(max(contexts)), _LEFT + 30, _RIGHT - 10)
    y = Scale(math.log(min(seconds) / _ROOM), math.log(max(seconds) * _ROOM), _BOTTOM, _TOP)

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return x(math.log(point[0])), y(math.log(point[1]))

    last = max(contexts)
    cached = [steps[0], (last, steps[0][1])]
    body = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    body += [
        path([at(point) for point in cached], "hypothesis cached"),
        path([at(p) for p in prefills], "hypothesis recomputed"),
    ]
    body += [dot(*at(point), 3.6, "dot") for point in steps]
    body += [rect(at(p)[0] - 3, at(p)[1] - 3, 6, 6, "square") for p in prefills]
    for point in (*steps, *prefills):
        right = point[0] == last
        place = at(point)[0] + (-6 if right else 6), at(point)[1] - 7
        body += [label(*place, _seconds(point[1]), "end" if right else "start", "quiet")]
    body += [label(x(math.log(n)), _BOTTOM + 15, f"{n:g}", "middle", "quiet") for n in sorted(set(contexts))]
    body += [
        label(
            _LEFT,
            _BOTTOM + 32,
            "context in tokens; both axes logarithmic; dots: one decode step, squares: prefill",
            css="quiet",
        )
    ]
    body += _named(at(cached[1])[1], at(prefills[-1])[1])
    return document(WIDTH, _HEIGHT, _title(steps, prefills), body)


def _named(cached: float, recomputed: float) -> list[str]:
    return [
        label(_RIGHT + 4, cached + 4, "with a KV cache", css="account-label"),
        label(_RIGHT + 4, recomputed + 4, "recomputing every token", css="witness-label"),
    ]


def _seconds(value: float) -> str:
    """A time with three digits: these stand side by side."""
    return f"{value:.3g} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def _title(steps: Points, prefills: Points) -> str:
    told = ", ".join(f"{_seconds(t)} at context {n:g}" for n, t in steps)
    dear = ", ".join(f"{_seconds(t)} at {n:g}" for n, t in prefills)
    return f"Time of one decode step: {told}. Were every token computed again it would be that of a prefill: {dear}."
