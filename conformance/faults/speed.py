"""Work done twice, or waited for."""

from __future__ import annotations

import time

from conformance.faults.layers import change_torch_step
from conformance.faults.planting import Plant, fault

_TIMED = ("perf",)


def _slow(plant, owner, name, seconds):
    def slowed(original, *arguments, **named):
        time.sleep(seconds)
        return original(*arguments, **named)

    plant.replace(owner, name, slowed)


@fault(expects={"F-PERF-085": "recompute_ratio"}, blast=_TIMED, seen_in="realizar 573de171, aprender PMAT-103")
def whole_sequence_for_every_token(plant: Plant) -> None:
    """Each token pushes the whole sequence through the model again."""

    def recomputed(step, model, state, length):
        import torch

        upto = int(state.position) + 1
        zeros = torch.zeros(upto, dtype=torch.int64, device=state.token.device)
        spare = model.new_cache(upto)
        model.forward(zeros, torch.arange(upto, device=zeros.device), upto, spare)
        return step(model, state, length)

    change_torch_step(plant, recomputed)


@fault(expects={"F-PERF-085": "positions"}, blast=_TIMED)
def positions_invented(plant: Plant) -> None:
    """The count of positions is the number of new ids."""
    from dataclasses import replace

    from reference_engine.engine import Engine

    plant.replace(
        Engine, "infer", lambda infer, self, *rest: replace(found := infer(self, *rest), positions=len(found.ids))
    )


@fault(expects={"F-PERF-083": "rate"}, blast=_TIMED, machine="gpu",
       seen_in="realizar a5561b6e, 3f341f05")  # fmt: skip
def twenty_milliseconds_a_token(plant: Plant) -> None:
    """Each step waits 20 ms, as an allocation or a transposed copy a layer would."""
    from reference_engine.decode import Decoding

    _slow(plant, Decoding, "step", 0.02)


@fault(
    expects={"F-PERF-084": "rate", "F-PERF-089": "ratio_to_cpu"}, blast=_TIMED, machine="gpu", seen_in="aprender#2790"
)
def forty_milliseconds_a_token(plant: Plant) -> None:
    """Each step waits 40 ms, which is no faster than some CPUs."""
    from reference_engine.decode import Decoding

    _slow(plant, Decoding, "step", 0.04)


@fault(expects={"F-PERF-090": "ratio_to_peer"}, blast=_TIMED, machine="gpu")
def eight_milliseconds_a_token(plant: Plant) -> None:
    """Each step waits 8 ms: fast enough for every other row, and far behind the engine without it."""
    from reference_engine.decode import Decoding

    _slow(plant, Decoding, "step", 0.008)


@fault(expects={"F-PERF-081": "load"}, blast=_TIMED, machine="gpu")
def loading_takes_six_seconds(plant: Plant) -> None:
    """Weights are converted one by one on the host: loading takes six seconds more."""
    from reference_engine import model

    _slow(plant, model, "load_weights", 6.0)


@fault(expects={"F-PERF-082": "first_token"}, blast=_TIMED, machine="gpu")
def first_token_compiles(plant: Plant) -> None:
    """Kernels are compiled with the first prompt of a length."""
    from reference_engine.decode import Decoding

    _slow(plant, Decoding, "_prefill", 1.0)


@fault(expects={"F-PERF-086": "peak"}, blast=_TIMED, machine="gpu", seen_in="realizar 3c09fd31, 95b4e932")
def weights_held_twice(plant: Plant) -> None:
    """A second copy of the weights stays on the device."""
    from reference_engine import model

    kept = []

    def doubled(load, *arguments):
        weights = load(*arguments)
        kept[:] = [storage.tensor.clone() for storage in weights.storages.values()]
        return weights

    plant.replace(model, "load_weights", doubled)


@fault(expects={"F-PERF-088": "utilisation"}, blast=_TIMED, machine="gpu")
def device_idles(plant: Plant) -> None:
    """The host takes 10 ms to launch each step."""
    from reference_engine.decode import Decoding

    _slow(plant, Decoding, "step", 0.01)


@fault(expects={"F-PERF-083": "not_computed"}, blast=_TIMED, machine="gpu")
def every_other_token_invented(plant: Plant) -> None:
    """Every other id is a copy of the one before it."""
    from dataclasses import replace

    from reference_engine.engine import Engine

    def copied(infer, self, *rest):
        found = infer(self, *rest)
        return replace(found, ids=[found.ids[i - i % 2] for i in range(len(found.ids))])

    plant.replace(Engine, "infer", copied)


@fault(expects={"F-MEM-033": "ratio_to_pageable"}, blast=("mem", "perf"), machine="gpu")
def pinned_flag_ignored(plant: Plant) -> None:
    """Input staged as pinned lies in pageable memory."""
    from dataclasses import replace

    import msgspec

    from conformance.engines.reference import ReferenceEngine

    assert replace
    plant.replace(
        ReferenceEngine,
        "storage_stage",
        lambda stage, self, params: stage(self, msgspec.structs.replace(params, pinned=False)),
    )


@fault(expects={"F-MEM-029": "bandwidth"}, blast=("mem", "perf"), machine="gpu")
def copies_in_small_pieces(plant: Plant) -> None:
    """Host to device goes in pieces of 64 KiB with a wait after each."""
    import torch

    from reference_engine.storage import CudaStorage, as_bytes

    def in_pieces(overwrite, self, host):
        target = as_bytes(self.tensor)
        for begin in range(0, host.numel(), 1 << 16):
            target[begin : begin + (1 << 16)].copy_(host[begin : begin + (1 << 16)])
            torch.cuda.synchronize()

    plant.replace(CudaStorage, "overwrite", in_pieces)


_COPIES = ("F-MEM-029", "F-MEM-033", "perf")


@fault(expects={"F-MEM-034": "pinned"}, blast=_COPIES, machine="gpu")
def ring_of_pageable_slabs(plant: Plant) -> None:
    """The slabs of the ring are not page-locked: its asynchronous copies are synchronous ones by another name."""
    import torch

    def pageable(empty, *shape, **named):
        named.pop("pin_memory", None)
        return empty(*shape, **named)

    plant.replace(torch, "empty", pageable)


@fault(expects={"F-MEM-034": "awaited"}, blast=_COPIES, machine="gpu")
def every_copy_awaited(plant: Plant) -> None:
    """After each copy of the ring its stream is waited for."""
    from reference_engine.storage import PinnedRing

    def awaited(send, self, turn, parts):
        for part in parts:
            send(self, turn, [part])
            self.stream.synchronize()

    plant.replace(PinnedRing, "send", awaited)


@fault(expects={"F-MEM-034": "asynchronous"}, blast=_COPIES, machine="gpu")
def copies_block(plant: Plant) -> None:
    """The ring copies with the blocking call of the runtime."""
    # SAFETY: one call of the runtime's C interface, with the four arguments of its documentation.
    import ctypes

    from reference_engine.storage import PinnedRing

    def blocking(send, self, turn, parts):
        slab = self._slabs[turn % len(self._slabs)]
        self.stream.synchronize()
        for address, nbytes, offset in parts:
            # SAFETY: both ends outlive the call, which blocks; the part's size bounds what is copied.
            copied = ctypes.CDLL(None).cudaMemcpy(
                ctypes.c_void_p(address), ctypes.c_void_p(slab.data_ptr() + offset), ctypes.c_size_t(nbytes), 1,
            )  # fmt: skip
            assert copied == 0
        send(self, turn, [])

    plant.replace(PinnedRing, "send", blocking)


@fault(expects={"F-MEM-034": "decode_step"}, blast=("perf",), machine="gpu", seen_in="realizar df8ba983")
def constants_sent_with_every_token(plant: Plant) -> None:
    """Each step sends 64 KiB of constants to the device again."""
    import torch

    from reference_engine.decode import Decoding

    def sent(step, self, *arguments, **named):
        torch.zeros(1 << 14).to("cuda")
        return step(self, *arguments, **named)

    plant.replace(Decoding, "step", sent)
