"""Triton as the kernels take it, or a stand-in where it is not installed.

CPU builds of torch do not bring Triton. The kernels can then be imported, read and documented like any module, and
none of them runs: taking one to launch it is the same error as importing Triton.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING or find_spec("triton") is not None:
    import triton
    import triton.language as tl
    from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
else:

    class _NotLaunched:
        """A kernel that nothing can compile."""

        def __init__(self, kernel: Callable[..., Any]) -> None:
            functools.update_wrapper(self, kernel)

        def __getitem__(self, grid: object) -> NoReturn:
            raise ModuleNotFoundError("No module named 'triton'", name="triton")

    class _Language:
        """The one name of the language that is used while a module is imported."""

        constexpr = staticmethod(lambda value: value)

    class _Triton:
        """The decorator, with and without arguments."""

        @staticmethod
        def jit(kernel: Callable[..., Any] | None = None, **_options: object) -> Any:
            return _NotLaunched if kernel is None else _NotLaunched(kernel)

    triton, tl = _Triton(), _Language()
    gdc_launch_dependents = gdc_wait = None

__all__ = ["gdc_launch_dependents", "gdc_wait", "tl", "triton"]
