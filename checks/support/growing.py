"""The operations whose memory must not grow: what rule R3 counts, in the trial and when it is calibrated."""

from __future__ import annotations

from checks.support.devices import growth_over, small_product
from checks.support.quality import loaded_model
from checks.support.tensors import bits_of, host_tensor
from checks.support.transfer import uploaded
from conformance.observations import Growth
from conformance.protocol.messages import Allocate, Drop, Generate, ModelLoaded, TensorData, Upload
from conformance.trial.stand import Stand

MIB = 1024 * 1024
GENERATIONS, GENERATIONS_WARM_UP = 120, 20
UPLOADS, UPLOADS_WARM_UP = 20, 4
CYCLES, CYCLES_WARM_UP = 44, 12


def grown_by_generations(
    stand: Stand, model: ModelLoaded, prompt_ids: list[int], tokens: int, device: int
) -> tuple[Growth, list[int]]:
    """F-PERF-087: one generation after another; with how many ids came from each."""
    longest = Generate(model.handle, tokens, prompt_ids=prompt_ids, ignore_eos=True)
    lengths: list[int] = []

    def generation() -> None:
        lengths.append(len(stand.engine.call("generate", longest).ids))

    seen = growth_over(stand, "generations", generation, count=GENERATIONS, warm_up=GENERATIONS_WARM_UP, device=device)
    return seen, lengths


def source_of(stand: Stand, nbytes: int) -> TensorData:
    """Random F32 bits in a file, to be uploaded."""
    return host_tensor(stand, "F32", [nbytes // 4], bits_of("F32", nbytes // 4, stand.random))


def grown_by_uploads(stand: Stand, sent: TensorData, device: int) -> Growth:
    """F-MEM-032: uploaded and dropped, again and again."""

    def cycle() -> None:
        handle = uploaded(stand, Upload(device, [sent]))
        stand.engine.call("storage.drop", Drop([handle]))

    return growth_over(stand, "uploads", cycle, count=UPLOADS, warm_up=UPLOADS_WARM_UP, device=device)


def grown_by_models(stand: Stand) -> Growth:
    """F-MEM-032: a model loaded and unloaded, again and again; its weights are storages that are dropped together."""

    def cycle() -> None:
        with loaded_model(stand):
            pass

    return growth_over(stand, "uploads/models", cycle, count=UPLOADS, warm_up=UPLOADS_WARM_UP)


def grown_by_cycles(stand: Stand) -> tuple[Growth, list[bool]]:
    """F-CUDA-020: a device opened, used and closed, again and again; with whether each computed."""
    computed: list[bool] = []

    def cycle() -> None:
        with stand.opened_device() as device:
            buffer = stand.engine.call("device.allocate", Allocate(device.handle, 64 * MIB))
            computed.append(small_product(stand, device.handle))
            stand.engine.call("device.free", buffer)

    return growth_over(stand, "cycles", cycle, count=CYCLES, warm_up=CYCLES_WARM_UP), computed
