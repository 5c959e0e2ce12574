"""The reference engine with one thing broken, as a driver; its argument names what."""

import sys

from conformance.engines.reference import ReferenceEngine
from conformance.protocol import messages as m
from conformance.protocol.host import serve
from reference_engine import errors, files, header
from reference_engine.files import SafeTensorsFile

WEIGHTS = ("F32", "F16", "BF16")


class Healthy(ReferenceEngine):
    """Nothing is broken."""


class HeaderOrder(ReferenceEngine):
    """Takes bytes in the order of the header, whatever the offsets say."""

    def file_open(self, params):
        handle = super().file_open(params)
        entries = self._held.get(handle.handle, SafeTensorsFile).tensors
        at = 0
        for name, entry in entries.items():
            entries[name] = entry._replace(begin=at, end=at + entry.nbytes)
            at += entry.nbytes
        return handle


class OnlyAlignedHeaders(ReferenceEngine):
    """Refuses a header whose length is no multiple of eight."""

    def file_open(self, params):
        handle = super().file_open(params)
        if self._held.get(handle.handle, SafeTensorsFile).data_start % 8:
            raise errors.InvalidFile(params.path, "the header length is no multiple of eight")
        return handle


class Renaming(ReferenceEngine):
    """Passes names through `renamed`."""

    def file_inspect(self, params):
        contents = super().file_inspect(params)
        tensors = [m.TensorEntry(self.renamed(t.name), t.dtype, t.shape, t.begin, t.end) for t in contents.tensors]
        return m.FileContents(tensors, contents.metadata)

    def file_read(self, params):
        names = self._held.get(params.handle, SafeTensorsFile).tensors
        name = next(found for found in names if self.renamed(found) == params.tensor)
        return super().file_read(m.FileRead(params.handle, name))


class ShortNames(Renaming):
    def renamed(self, name):
        return name[:63]


class FoldedNames(Renaming):
    def renamed(self, name):
        return name.lower()


class ScalarsAreVectors(ReferenceEngine):
    """Says [1] for a scalar."""

    def file_open(self, params):
        handle = super().file_open(params)
        entries = self._held.get(handle.handle, SafeTensorsFile).tensors
        for name, entry in entries.items():
            entries[name] = entry._replace(shape=entry.shape or (1,))
        return handle


class HalfForHalf(ReferenceEngine):
    """Says BF16 for F16, and widens one as the other."""

    def file_open(self, params):
        handle = super().file_open(params)
        entries = self._held.get(handle.handle, SafeTensorsFile).tensors
        for name, entry in entries.items():
            entries[name] = entry._replace(dtype="BF16" if entry.dtype == "F16" else entry.dtype)
        return handle

    def storage_convert(self, params):
        import torch

        from reference_engine.storage import CudaStorage

        storage = self._held.get(params.handle, CudaStorage)
        other = torch.bfloat16 if storage.dtype == "F16" else torch.float16
        return m.Handle(self._held.hold(CudaStorage(storage.device, storage.tensor.view(other).float())))


class AcceptsHoles(ReferenceEngine):
    """Does not look whether tensors cover the buffer."""

    def initialize(self, params):
        header._check_coverage = lambda *_: None
        return super().initialize(params)


class BlanksForNul(ReferenceEngine):
    """Takes NUL for a blank in the header."""

    def initialize(self, params):
        parse = files.parse_header
        files.parse_header = lambda path, raw, size: parse(path, bytes(raw).replace(b"\0", b" "), size)
        return super().initialize(params)


class ZeroFilled(ReferenceEngine):
    """What the file lacks is zeros."""

    def initialize(self, params):
        header._check_coverage = lambda *_: None
        read_into = SafeTensorsFile.read_into

        def lenient(file, offset, target):
            try:
                read_into(file, offset, target)
            except errors.InvalidFile:
                return

        SafeTensorsFile.read_into = lenient
        return super().initialize(params)


class OpensAnything(ReferenceEngine):
    """What is no SafeTensors file is one without tensors."""

    def file_open(self, params):
        try:
            return super().file_open(params)
        except errors.InvalidFile:
            return m.Handle(-1)

    def file_inspect(self, params):
        return m.FileContents([]) if params.handle == -1 else super().file_inspect(params)

    def file_close(self, params):
        if params.handle != -1:
            super().file_close(params)


class DropsMetadata(ReferenceEngine):
    """Forgets the metadata."""

    def file_inspect(self, params):
        return m.FileContents(super().file_inspect(params).tensors)


class Aborts(ReferenceEngine):
    """Dies of a file whose tensors leave a hole."""

    def initialize(self, params):
        import os

        header._check_coverage = lambda _path, entries, size: sum(e.nbytes for e in entries) == size or os.abort()
        return super().initialize(params)


class Edits(ReferenceEngine):
    """Changes loaded and uploaded tensors in place by `edit`."""

    def storage_load_file(self, params):
        from reference_engine.storage import CudaStorage

        loaded = super().storage_load_file(params)
        for stored in loaded.tensors.values():
            self.edit(self._held.get(stored.handle, CudaStorage).tensor)
        return loaded


class Scrubs(Edits):
    """NaN becomes zero."""

    def edit(self, tensor):
        tensor.nan_to_num_(nan=0.0, posinf=float("inf"), neginf=float("-inf"))


class Clamps(Edits):
    """Infinity becomes the largest number."""

    def edit(self, tensor):
        tensor.nan_to_num_(nan=float("nan"))


class OneItemSize(Edits):
    """Two-byte tensors are read from the place of four-byte ones."""

    def edit(self, tensor):
        if tensor.element_size() == 2:
            tensor.copy_(tensor.clone().roll(1))


class SkipsForeignDtypes(ReferenceEngine):
    """Leaves out what is no weight, in silence."""

    def storage_load_file(self, params):
        from reference_engine import loader
        from reference_engine.checkpoint import Checkpoint

        class OnlyWeights(Checkpoint):
            def __enter__(self):
                opened = super().__enter__()
                for name in [n for n, located in opened.tensors.items() if located.entry.dtype not in WEIGHTS]:
                    del opened.tensors[name]
                return opened

        loader.Checkpoint = OnlyWeights
        return super().storage_load_file(params)


class LeavesHalf(ReferenceEngine):
    """Keeps the weights of a file that it refuses."""

    def storage_load_file(self, params):
        from conformance.engines.reference_devices import OpenDevice
        from reference_engine.storage import CudaStorage

        try:
            return super().storage_load_file(params)
        except errors.UnsupportedDtype:
            device = self._held.get(params.device, OpenDevice).device
            self._held.hold(CudaStorage.from_bytes(bytes(4096), "F32", [1024], device))
            raise


if __name__ == "__main__":
    serve(globals()[sys.argv[1]])
