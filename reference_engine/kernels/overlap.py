"""Programmatic dependent launch: a kernel starts while the one before it ends, and fetches what cannot change.

The rule that keeps it safe: before `wait`, a kernel reads only what no kernel of the same step writes (weights,
the position, older entries of the KV cache); every program of every kernel waits before it ends, so that waiting
for the kernel before means waiting for all before it. The first kernel of a step is launched without it.
"""

from __future__ import annotations

from reference_engine.kernels.toolchain import gdc_launch_dependents, gdc_wait, tl, triton

LINE = tl.constexpr(128)


@triton.jit
def let_next_start(OVERLAP: tl.constexpr):
    """Allow the next kernel's programs to start wherever there is room."""
    if OVERLAP:
        gdc_launch_dependents()


@triton.jit
def wait(OVERLAP: tl.constexpr):
    """Wait until everything that earlier kernels wrote can be read."""
    if OVERLAP:
        gdc_wait()


@triton.jit
def prefetch(addresses, OVERLAP: tl.constexpr):
    """Ask for the lines at these addresses to be brought into the L2 cache; nothing waits for them."""
    if OVERLAP:
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
            "=r,l",
            [addresses.to(tl.int64)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
