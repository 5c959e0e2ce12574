"""What takes long and needs no interpreter, done while torch is being imported: the device's context, Triton's key."""

from __future__ import annotations

# SAFETY: three calls of the driver's C interface, each with the types of its documentation, results checked.
import ctypes
import threading
from contextlib import suppress

DRIVER = "libcuda.so.1"


def make_context_meanwhile(index: int = 0) -> threading.Thread:
    """Make the primary context of a CUDA device on a thread, for torch to find there; the thread, already started.

    Without a driver, or with one that fails, nothing happens: torch will say what is wrong.
    """
    thread = threading.Thread(target=_retain_primary_context, args=(index,), name="cuda context", daemon=True)
    thread.start()
    return thread


def _retain_primary_context(index: int) -> None:
    # SAFETY: both outlive the calls that write them.
    device, context = ctypes.c_int(), ctypes.c_void_p()
    # OSError: there is no driver. AttributeError: it lacks a function.
    with suppress(OSError, AttributeError):
        # SAFETY: the system's own driver, the library that torch loads too.
        driver = ctypes.CDLL(DRIVER)
        # Calls by ctypes let the interpreter go on. The context is kept until the process ends, as torch keeps it.
        # SAFETY: the driver writes one int and one pointer.
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            threading.Thread(target=_read_compiler, name="compiler", daemon=True).start()
            # SAFETY: as above.
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _read_compiler() -> None:
    """Let Triton read all of itself, of which it makes the keys of its cache; where this fails, it does so later."""
    with suppress(ImportError):
        from triton.runtime.cache import triton_key  # noqa: PLC0415 - on a GPU only, and beside torch

        triton_key()
