"""How this package compiles and runs its kernels.

Kernels release the interpreter lock and are run from ordinary threads, each on its own list of tasks. Numba's own
parallel loops are not used: they divide work statically, although queries differ in size a thousandfold, and their
default thread pool ends the process when two Python threads enter it at once. No kernel adds up across tasks, so
results do not depend on the number of threads.

Modules that import this one are imported inside the functions that need them: numba takes a third of a second to load.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar, cast

import numba
import numpy as np

from ccmc._data.types import IntArray

Function = TypeVar("Function", bound=Callable[..., object])

# Sums may be reordered and fused, nothing else: infinities and NaN keep their meaning.
_REASSOCIATE = {"reassoc", "contract", "nsz"}


def kernel(function: Function) -> Function:
    """Compile for one thread without the interpreter lock; the machine code is cached beside the source.

    That sums are not reordered is said, as a kernel that is first compiled for a caller has the caller's leave else.
    """
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=False)(function))


def summing_kernel(function: Function) -> Function:
    """As `kernel`, and long sums may be reordered so that they run at the speed of memory.

    How they are reordered is settled anew wherever the machine code is optimised. Called out of line, a kernel would
    be the one of several copies that a process happened to load first, and a process that compiles it would not get
    the last bits of one that finds it in the cache. So it becomes part of whoever calls it.
    """
    return cast(
        Function,
        numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_REASSOCIATE, forceinline=True)(function),
    )


def thread_count() -> int:
    """Cores this process may use: `CCMC_THREADS`, else what the operating system grants."""
    wanted = os.environ.get("CCMC_THREADS")
    if wanted is not None:
        if not wanted.isdigit() or int(wanted) < 1:
            raise ValueError(f"CCMC_THREADS must be a positive integer, got {wanted!r}")
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def shared_pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work, because starting some takes as long as a small fit. Work must not wait for work."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ccmc")


if hasattr(os, "register_at_fork"):
    # A forked process has the pool but none of its threads.
    os.register_at_fork(after_in_child=shared_pool.cache_clear)


def run_tasks(
    work: Callable[[IntArray], object], costs: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]
) -> None:
    """Run `work(task_ids)` over all tasks, the dearest first, in small portions that threads take as they get free.

    Args:
        work: does the tasks whose ids it is given; must release the interpreter lock to gain from threads.
        costs: [tasks] estimated cost of each task, in any unit.
    """
    cost = np.asarray(costs, dtype=np.float64)
    order = np.argsort(-cost, kind="stable").astype(np.int64)
    threads = min(thread_count(), len(order))
    if threads <= 1:
        work(order)
        return
    # A portion is at most 1/16 of a thread's fair share, so the last one to finish is not long alone.
    share = cost.sum() / (16 * threads)
    edges = np.flatnonzero(np.diff((np.cumsum(cost[order]) / max(share, 1e-300)).astype(np.int64))) + 1
    pool = shared_pool(threads)
    finished = [pool.submit(work, portion) for portion in np.split(order, edges)]
    wait(finished)
    for done in finished:
        done.result()
