"""Threads of numerical libraries. How many a unit computes with is part of its plan, since sums depend on it.

torch and the BLAS under numpy and scipy add up in as many parts as they have threads, so that the last bits of a row
follow from their number. The compiled kernels of this project do not add up across threads: how many they get is a
matter of speed alone, and is shared out among workers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

SUMMING = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)  # fmt: skip
"""Variables that libraries read when they are imported, of threads that rows depend on."""
SPEEDING = ("CCMC_THREADS", "NUMBA_NUM_THREADS")
"""The same of threads that no row depends on."""


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def shared_out(workers: int, threads: int = 1) -> dict[str, str]:
    """Environment of a worker that has the machine to share, but for what the user's own environment says.

    Args:
        workers: processes that compute at the same time.
        threads: of a unit.
    """
    fair = str(max(1, cores() // workers))
    return {
        **{name: os.environ.get(name, fair) for name in SPEEDING},
        **dict.fromkeys(SUMMING, str(threads)),
    }


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let torch and the BLAS libraries compute with exactly so many threads.

    Args:
        threads: whatever the environment says, and whether the libraries are loaded already or in the block.
    """
    before = {name: os.environ.get(name) for name in SUMMING}
    os.environ.update(dict.fromkeys(SUMMING, str(threads)))  # for libraries that the block imports
    torch = sys.modules.get("torch")
    had = None if torch is None else torch.get_num_threads()
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        with _blas(threads):
            yield
    finally:
        if torch is not None and had is not None:
            torch.set_num_threads(had)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _blas(threads: int) -> Any:
    """Limit the BLAS libraries that are loaded already."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # an environment from before it was a requirement
        return nullcontext()
    return threadpool_limits(limits=threads, user_api="blas")
