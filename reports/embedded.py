"""The record inside its page: the very bytes, compressed, as a link that works without scripts and can be read back."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from pathlib import Path

from conformance.record import BrokenRecord, Line, Record, encode_line

MEDIA_TYPE = "application/gzip"
PAGE_SUFFIX = ".html"
_GZIP, _LEVEL = 31, 9
_MOST_BYTES = 256 * 1024 * 1024
_LINK = re.compile(rb'id="record"[^>]*href="data:application/gzip;base64,([A-Za-z0-9+/=]+)"')


def record_bytes(record: Record) -> bytes:
    """The record as the lines of its file."""
    lines: list[Line] = [record.header, *record.rows, *([record.footer] if record.footer else [])]
    return b"".join(map(encode_line, lines))


def embedded(raw: bytes) -> str:
    """A data: URI of the bytes, gzipped without a time, so that the same record gives the same page."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    packed = packer.compress(raw) + packer.flush()
    return f"data:{MEDIA_TYPE};base64,{base64.b64encode(packed).decode()}"


def stored_bytes(path: Path) -> bytes:
    """The bytes of a record, of its own file or out of a scorecard.

    Raises:
        BrokenRecord: a scorecard that holds none.
        OSError: a file that cannot be read.
    """
    return record_within(path) if path.suffix == PAGE_SUFFIX else path.read_bytes()


def record_within(page: Path) -> bytes:
    """The bytes of the record that a scorecard holds.

    Raises:
        BrokenRecord: there is none, or it does not unpack to one of at most 256 MiB.
    """
    try:
        found = _LINK.search(page.read_bytes())
        if found is None:
            raise BrokenRecord(page, "no record lies inside this page")
        unpacker = zlib.decompressobj(_GZIP)
        raw = unpacker.decompress(base64.b64decode(found[1], validate=True), _MOST_BYTES)
    except OSError as error:
        raise BrokenRecord(page, error.strerror or str(error)) from error
    except (zlib.error, binascii.Error) as error:
        raise BrokenRecord(page, f"the record inside it is damaged: {error}") from error
    if not unpacker.eof:
        raise BrokenRecord(page, f"the record inside it is cut short, or larger than {_MOST_BYTES} bytes")
    return raw
