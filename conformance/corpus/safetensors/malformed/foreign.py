"""Files of other formats under the extension `.safetensors`: the format has no magic to tell them by."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np

from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("foreign", row="F-PARSE-044")


def _arrays(base: Plain) -> dict[str, bytes]:
    return {tensor.name: tensor.payload for tensor in base.layout.tensors}


@FAMILY.rejects(Rule.NO_MAGIC)
def pickled(source: Source) -> Case:
    """A Python pickle of the tensors, in any protocol."""
    base = plain(source)
    return base.broken(pickle.dumps(_arrays(base), protocol=source.integer(0, 5)))


@FAMILY.rejects(Rule.NO_MAGIC)
def torch_zip(source: Source) -> Case:
    """A PyTorch checkpoint: a zip archive of a pickle and raw storages."""
    base = plain(source)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_dated("archive/data.pkl"), pickle.dumps(sorted(_arrays(base)), protocol=2))
        for index, payload in enumerate(_arrays(base).values()):
            archive.writestr(_dated(f"archive/data/{index}"), payload)
        archive.writestr(_dated("archive/version"), "3\n")
    return base.broken(stream.getvalue())


def _dated(name: str) -> zipfile.ZipInfo:
    """A zip member that does not carry the clock."""
    return zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))


@FAMILY.rejects(Rule.NO_MAGIC)
def numpy_npz(source: Source) -> Case:
    """A numpy archive, compressed or not."""
    base = plain(source)
    stream = io.BytesIO()
    kind = source.pick([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(stream, "w", kind) as archive:
        for name, payload in _arrays(base).items():
            archive.writestr(_dated(f"{name}.npy"), _npy(payload))
    return base.broken(stream.getvalue())


def _npy(payload: bytes) -> bytes:
    stream = io.BytesIO()
    # SAFETY: `payload` is immutable bytes of this process, read as single bytes.
    np.save(stream, np.frombuffer(payload, np.uint8), allow_pickle=False)
    return stream.getvalue()


@FAMILY.rejects(Rule.NO_MAGIC)
def numpy_npy(source: Source) -> Case:
    """A numpy array file."""
    base = plain(source)
    return base.broken(_npy(base.parts.buffer))


@FAMILY.rejects(Rule.NO_MAGIC)
def gguf(source: Source) -> Case:
    """A GGUF file, version 2 or 3, with one tensor."""
    base = plain(source)
    name = base.layout.tensors[0].name.encode()
    head = b"GGUF" + struct.pack("<IQQ", source.integer(2, 3), 1, 1)
    pair = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5) + b"qwen2"
    info = struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, len(base.parts.buffer) // 2, 1, 0)
    return base.broken(_aligned(head + pair + info, 32) + base.parts.buffer)


def _aligned(data: bytes, multiple: int) -> bytes:
    return data + b"\0" * (-len(data) % multiple)


@FAMILY.rejects(Rule.NO_MAGIC)
def apr(source: Source) -> Case:
    """An APR file: magic, a 64-byte header, JSON metadata, the buffer, and its checksum."""
    base = plain(source)
    magic = source.pick([b"APR\0", b"APR2", b"APRN"])
    metadata = json.dumps({"name": base.layout.tensors[0].name}).encode().ljust(64)
    head = magic + struct.pack("<BBHIQI", 2, 0, 0, 1, 64, len(metadata))
    body = head.ljust(64, b"\0") + metadata + base.parts.buffer
    return base.broken(body + struct.pack("<I", zlib.crc32(body)))


@FAMILY.rejects(Rule.NO_MAGIC)
def hdf5(source: Source) -> Case:
    """The beginning of an HDF5 file, and data."""
    base = plain(source)
    superblock = b"\x89HDF\r\n\x1a\n" + bytes([source.integer(0, 3), 0, 0, 0, 0, 8, 8, 0]) + b"\xff" * 32
    return base.broken(_aligned(superblock, 512) + base.parts.buffer)


@FAMILY.rejects(Rule.NO_MAGIC)
def elf(source: Source) -> Case:
    """The beginning of a program."""
    base = plain(source)
    ident = b"\x7fELF" + bytes([source.integer(1, 2), source.integer(1, 2), 1]) + b"\0" * 9
    return base.broken(ident + struct.pack("<HHIQQQ", 3, 62, 1, 0, 64, 0) + base.parts.buffer)


@FAMILY.rejects(Rule.NO_MAGIC)
def png(source: Source) -> Case:
    """A picture, as a model card would show."""
    base = plain(source)
    pixels = filler(source.integer(0, 65_535), source.integer(1, 64))
    size = struct.pack(">IIBBBBB", len(pixels), 1, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(b"\0" + pixels)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return base.broken(b"\x89PNG\r\n\x1a\n" + body)


@FAMILY.rejects(Rule.NO_MAGIC)
def gzipped(source: Source) -> Case:
    """The valid file itself, compressed."""
    base = plain(source)
    return base.broken(gzip.compress(base.data, compresslevel=source.integer(1, 9), mtime=0))


@FAMILY.rejects(Rule.NO_MAGIC)
def tarred(source: Source) -> Case:
    """The valid file itself, inside a tar archive."""
    base = plain(source)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("model.safetensors")
        member.size = len(base.data)
        archive.addfile(member, io.BytesIO(base.data))
    return base.broken(stream.getvalue())


@FAMILY.rejects(Rule.NO_MAGIC)
def lfs_pointer(source: Source) -> Case:
    """A Git LFS pointer, where the checkout did not fetch the file."""
    base = plain(source)
    digest = filler(source.integer(0, 65_535), 32).hex()
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(base.data)}\n"
    return base.broken(text.encode())


@FAMILY.rejects(Rule.NO_MAGIC)
def web_page(source: Source) -> Case:
    """An error page that a download saved under the model's name."""
    base = plain(source)
    status = source.pick([401, 403, 404, 429, 500, 503])
    name = base.layout.tensors[0].name
    body = f"<!DOCTYPE html><html><head><title>{status}</title></head><body>{name}</body></html>\n"
    return base.broken(source.pick([body, f'{{"error":"{status}","message":"{name}"}}']).encode())


@FAMILY.rejects(Rule.NO_MAGIC)
def shard_index(source: Source) -> Case:
    """The JSON index of a sharded model under a shard's name."""
    base = plain(source)
    shard = f"model-{source.integer(1, 99):05d}-of-00099.safetensors"
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(base.contents.tensors, shard)}
    return base.broken(json.dumps(index, indent=source.pick([None, 2])).encode())


@FAMILY.rejects(Rule.NO_MAGIC)
def plain_text(source: Source) -> Case:
    """Prose: a licence, a readme, a configuration."""
    base = plain(source)
    name = base.layout.tensors[0].name
    line = source.pick(["# Model card of {}\n\n", "hidden_size = 64 # {}\n", "{}\n", "Licensed for {}.\n"])
    return base.broken((line.format(name) * source.integer(2, 60)).ljust(16).encode())


@FAMILY.rejects(Rule.NO_MAGIC)
def all_zeros(source: Source) -> Case:
    """Nothing but zeros, as a file that was reserved and never written."""
    base = plain(source)
    return base.broken(b"\0" * source.integer(8, 65_536))


@FAMILY.rejects(Rule.NO_MAGIC)
def all_ones(source: Source) -> Case:
    """Nothing but 0xFF, as erased flash reads."""
    base = plain(source)
    return base.broken(b"\xff" * source.integer(8, 65_536))


@FAMILY.rejects(Rule.NO_MAGIC)
def noise(source: Source) -> Case:
    """Bytes without structure, as an encrypted file; the length they happen to announce is huge."""
    base = plain(source)
    head = filler(source.integer(0, 65_535), source.integer(16, 4096))
    return base.broken(head[:7] + bytes([head[7] | 0x10]) + head[8:])
