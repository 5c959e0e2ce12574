"""The few pieces of SVG that the plots are made of. Colours are CSS classes, so that a page's theme applies."""

from __future__ import annotations

from html import escape

import msgspec

from reports.text import visible


class Scale(msgspec.Struct, frozen=True):
    """A linear map from data to pixels; a degenerate domain maps to the middle."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixels of a value."""
        if self.high == self.low:
            return (self.begin + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)


def coordinate(value: float) -> str:
    """One decimal, no trailing zero, no minus zero: small files and the same bytes everywhere."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return f'<line class="{css}"{_numbers(x1=x1, y1=y1, x2=x2, y2=y2)}/>'


def rect(x: float, y: float, width: float, height: float, css: str) -> str:
    """A rectangle; negative sizes are empty."""
    return f'<rect class="{css}"{_numbers(x=x, y=y, width=max(0, width), height=max(0, height))}/>'


def dot(x: float, y: float, radius: float, css: str) -> str:
    """A filled circle."""
    return f'<circle class="{css}"{_numbers(cx=x, cy=y, r=radius)}/>'


def path(points: list[tuple[float, float]], css: str) -> str:
    """A polyline through the points."""
    steps = "L".join(f"{coordinate(x)} {coordinate(y)}" for x, y in points)
    return f'<path class="{css}" d="M{steps}"/>'


def label(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> str:
    """A text; `anchor` is start, middle or end."""
    classes = f' class="{css}"' if css else ""
    place = f'x="{coordinate(x)}" y="{coordinate(y)}" text-anchor="{anchor}"'
    return f"<text{classes} {place}>{escape(visible(text))}</text>"


def document(width: float, height: float, title: str, body: list[str]) -> str:
    """An inline SVG image whose title is its text alternative."""
    size = f'viewBox="0 0 {coordinate(width)} {coordinate(height)}" style="max-width:{coordinate(width)}px"'
    words = escape(visible(title), quote=True)
    return f'<svg class="plot" role="img" aria-label="{words}" {size}>{"".join(body)}</svg>'


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round values between two limits, about `wanted` of them."""
    span = high - low
    if span <= 0:
        return [low]
    rough = span / wanted
    power = 10.0 ** _floor_log10(rough)
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9)), 10 * power)
    first = -(-low // step)
    return [round((first + i) * step, 12) for i in range(wanted * 3) if (first + i) * step <= high + span * 1e-9]


def _floor_log10(value: float) -> int:
    exponent = 0
    while value >= 10:  # noqa: PLR2004
        value, exponent = value / 10, exponent + 1
    while value < 1:
        value, exponent = value * 10, exponent - 1
    return exponent


def _numbers(**attributes: float) -> str:
    return "".join(f' {name}="{coordinate(value)}"' for name, value in attributes.items())
