"""The reference engine deliberately slowed, leaking or wasteful, as a driver; its argument names how.

Each is the positive control of a row that measures: the same measurement on it must fail.
"""

import sys
import time

from conformance.engines.reference import ReferenceEngine
from conformance.engines.reference_devices import OpenDevice, Staged
from conformance.protocol import messages as m
from conformance.protocol.host import serve

MIB = 1024 * 1024


class Healthy(ReferenceEngine):
    """Nothing is slowed."""


class OftenWaitsWhileQueueing(ReferenceEngine):
    """F-CUDA-017: three of five times, queueing returns when the work would be done, as with a full queue."""

    queued = 0

    def device_enqueue(self, params):
        self.queued += 1
        if self.queued % 5 in {1, 2, 4}:
            time.sleep(params.milliseconds / 1000)
        return super().device_enqueue(params)


class SlowLoad(ReferenceEngine):
    """F-PERF-081: takes three seconds more to load."""

    def model_load(self, params):
        time.sleep(3.0)
        return super().model_load(params)


class SlowFirstToken(ReferenceEngine):
    """F-PERF-082: the first generation of a process takes 0.7 s more, as a compiler in it would."""

    warm = False

    def generate(self, params):
        if not self.warm:
            time.sleep(0.7)
            self.warm = True
        return super().generate(params)


class SlowDecode(ReferenceEngine):
    """F-PERF-083, 084, 088, 089, 090: 20 ms more a token, so fewer than 50 a second."""

    def generate(self, params):
        time.sleep(0.02 * params.max_tokens)
        return super().generate(params)


class Steady(ReferenceEngine):
    """The other side of F-PERF-090 where a small model is too fast to be timed: 10 ms more a token."""

    def generate(self, params):
        time.sleep(0.01 * params.max_tokens)
        return super().generate(params)


class SlowByThreeTenths(ReferenceEngine):
    """F-PERF-090: each token takes 1.4 times as long, 29 % below parity."""

    def generate(self, params):
        began = time.perf_counter()
        answer = super().generate(params)
        time.sleep(0.4 * (time.perf_counter() - began))
        return answer


class SlowLink(ReferenceEngine):
    """F-MEM-029, 033: staged input goes at 1 GB/s."""

    def storage_upload_staged(self, params):
        staged = self._held.get(params.staged, Staged)
        time.sleep(params.repeat * sum(host.nbytes for host in staged.hosts) / 1e9)
        super().storage_upload_staged(params)


class IgnoresPinned(ReferenceEngine):
    """F-MEM-033, 034: takes the flag and goes the pageable way."""

    def storage_stage(self, params):
        return super().storage_stage(m.Stage(params.device, params.tensors, pinned=False))

    def storage_upload(self, params):
        return super().storage_upload(m.Upload(params.device, params.tensors, False, params.asynchronous))


class WaitsForEachCopy(ReferenceEngine):
    """F-MEM-034: pinned and asynchronous, with a wait after each slab."""

    def storage_upload(self, params):
        from reference_engine.storage import PinnedRing

        send = PinnedRing.send

        def send_and_wait(ring, *arguments):
            send(ring, *arguments)
            ring.stream.synchronize()

        PinnedRing.send = send_and_wait
        return super().storage_upload(params)


class RefillsTooEarly(ReferenceEngine):
    """F-MEM-030: asynchronous uploads share one staging buffer, which the next one overwrites."""

    def storage_upload(self, params):
        handles = super().storage_upload(params)
        if params.asynchronous:
            from reference_engine.storage import CudaStorage

            mine = self._held.get(handles.handles[0], CudaStorage)
            before, self.before = getattr(self, "before", None), mine
            if before is not None and before.nbytes == mine.nbytes and before._tensor is not None:
                before.tensor.copy_(mine.tensor)
        return handles


class NoCache(ReferenceEngine):
    """F-PERF-085: recomputes everything before each token."""

    def generate(self, params):
        ids = list(params.prompt_ids)
        answer = super().generate(params)
        for done in range(params.max_tokens - 1):
            self.model_logits(m.Logits(params.model, [*ids, *answer.ids[: done + 1]], last=1))
        recomputed = sum(len(ids) + done for done in range(params.max_tokens))
        return m.Generation(
            answer.ids, answer.text, answer.finish_reason, answer.prompt_tokens, answer.used_gpu, positions=recomputed
        )


class NoCacheInSilence(NoCache):
    """F-PERF-085 for an engine that counts nothing."""

    def generate(self, params):
        answer = super().generate(params)
        return m.Generation(answer.ids, answer.text, answer.finish_reason, answer.prompt_tokens, answer.used_gpu)


class Leaking(ReferenceEngine):
    """Keeps `kept` bytes more at every call of `leak`, on the device where there is one, outside its own account."""

    kept = 4 * MIB

    def leak(self):
        import torch

        place = "cuda" if torch.cuda.is_available() else "cpu"
        self.lost = [*getattr(self, "lost", []), torch.ones(self.kept, dtype=torch.uint8, device=place)]


class LeaksGenerations(Leaking):
    """F-PERF-087: 4 MiB a generation."""

    def generate(self, params):
        self.leak()
        return super().generate(params)


class LeaksInTheAccount(ReferenceEngine):
    """F-PERF-087: 4 KiB a generation, which its own account shows."""

    def generate(self, params):
        from reference_engine.storage import CudaStorage

        for _, held in self._held:
            if isinstance(held, OpenDevice):
                self._held.hold(CudaStorage.from_bytes(bytes(4096), "F32", [1024], held.device))
        return super().generate(params)


class LeaksUploads(Leaking):
    """F-MEM-032: 4 MiB of each upload that is dropped."""

    def storage_drop(self, params):
        self.leak()
        super().storage_drop(params)


class LeaksDevices(Leaking):
    """F-CUDA-020: 4 MiB of each device that is closed."""

    def device_close(self, params):
        self.leak()
        super().device_close(params)


class Hoards(Leaking):
    """F-PERF-086: 3 GB beyond the weights."""

    kept = 3_000_000_000

    def model_load(self, params):
        self.leak()
        return super().model_load(params)


class ForgivesDroppedHandles(ReferenceEngine):
    """F-MEM-032: dropping what was dropped is fine, and reading it gives what was there."""

    def storage_drop(self, params):
        known = [handle for handle, _ in self._held]
        super().storage_drop(m.Drop([handle for handle in params.handles if handle in known]))


class ForgivesClosedDevices(ReferenceEngine):
    """F-CUDA-020: a device that was closed can be waited for."""

    def device_synchronize(self, params):
        if params.handle in [handle for handle, _ in self._held]:
            super().device_synchronize(params)


if __name__ == "__main__":
    serve(globals()[sys.argv[1]])
