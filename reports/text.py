"""Foreign text made safe to look at, and numbers made easy to read: pure functions shared by all reports.

Names, error texts and paths come from an engine under test. What a reader cannot see (controls, bidirectional
overrides, zero-width characters, lone surrogates) is spelled out as an escape, so that no report hides it.
"""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"
_KEPT = {"\n", "\t"}
_HIDDEN_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE = 60.0
_MILLISECOND = 1e-3
_BINARY_STEP = 1024
_LAST_BYTE = 0xFF
_LAST_OF_PLANE = 0xFFFF
_AMOUNT = re.compile(r"(?<![\w.])(\d{1,20}(?:\.\d+)?(?:e[+-]?\d{1,2})?) (B/s|bytes|B)(?![\w/])")
_RATE_UNITS = ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"))
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


def visible(text: str) -> str:
    r"""The text with every invisible character spelled as ``\x00``, ``\u202e`` or ``\U000e0001``.

    Newlines and tabs stay. The result is valid in XML 1.0 and carries no terminal escape sequence.
    """
    if text.isascii() and text.isprintable():
        return text
    return text.translate({ord(character): _spelled(character) for character in hidden(text)})


def hidden(text: str) -> set[str]:
    """The characters of the text that a reader could not see, newline and tab excepted."""
    return {character for character in set(text) if not _shown(character)}


def _shown(character: str) -> bool:
    if unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return character in _KEPT
    code = ord(character)
    return code & 0xFFFE != 0xFFFE and not 0xFDD0 <= code <= 0xFDEF  # noqa: PLR2004 Unicode's noncharacters


def _spelled(character: str) -> str:
    code = ord(character)
    if code <= _LAST_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _LAST_OF_PLANE else f"\\U{code:08x}"


def clip(text: str, limit: int) -> str:
    """At most `limit` characters of the text, and how many there were if some are missing."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}{ELLIPSIS} ({len(text):,} characters)"


def one_line(text: str, limit: int = 200) -> str:
    """The visible text on one line, runs of white space collapsed, clipped."""
    return clip(" ".join(visible(text).split()), limit)


def file_size(nbytes: int) -> str:
    """A byte count in binary units, exact below 1 KiB: `512 B`, `9.9 MiB`."""
    size, unit = float(nbytes), 0
    while abs(size) >= _BINARY_STEP and unit < len(_BYTE_UNITS) - 1:
        size, unit = size / _BINARY_STEP, unit + 1
    return f"{nbytes:,} B" if unit == 0 else f"{size:.1f} {_BYTE_UNITS[unit]}"


def rate(bytes_per_second: float) -> str:
    """Bytes per second in decimal units, as links are sold: `54.7 GB/s`."""
    for size, unit in _RATE_UNITS:
        if abs(bytes_per_second) >= size:
            return f"{bytes_per_second / size:.4g} {unit}"
    return f"{bytes_per_second:.4g} B/s"


def readable_amounts(words: str) -> str:
    """The words with every amount of bytes, or of bytes per second, in a unit that fits it."""
    return _AMOUNT.sub(lambda found: _amount(float(found[1]), found[2]), words)


def _amount(value: float, unit: str) -> str:
    return rate(value) if unit == "B/s" else file_size(round(value))


def moment(stamp: str) -> str:
    """`2026-11-24T20:15:31+00:00` as `2026-11-24 20:15:31 UTC`; anything else as it is."""
    return _MOMENT.sub(r"\1 \2 UTC", stamp)


def duration(seconds: float) -> str:
    """A span of time with about three digits: `480 µs`, `12 ms`, `3.4 s`, `2 min 05 s`."""
    if round(seconds, 1) >= _MINUTE:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if round(seconds, 3) >= 1:
        return f"{seconds:.1f} s"
    if seconds >= _MILLISECOND:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"


def number(value: float) -> str:
    """A number with four significant digits, grouped from 10,000 on; never in exponent form below a billion."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e9):  # noqa: PLR2004
        return f"{int(value):,}"
    if 1e3 <= abs(value) < 1e9:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.4g}"


def plural(count: int, noun: str, plural_noun: str = "") -> str:
    """`1 row`, `2 rows`."""
    return f"{count:,} {noun if count == 1 else plural_noun or noun + 's'}"


def listed(words: list[str], limit: int = 6) -> str:
    """`a, b and c`; past the limit `a, b, … and 4 more`."""
    if len(words) > limit:
        return f"{', '.join(words[:limit])} and {len(words) - limit} more"
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return "".join(words)
