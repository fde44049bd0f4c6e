"""Memory of the process: how much it held, how much there is, and letting it keep what it has (glibc; elsewhere nothing
happens).

Every step of a network frees and asks again for the same large blocks. By default glibc gives them back to the system
each time, and each is then faulted in anew, page by page. Measured on two idle cores: about 22,000 page faults a pass
without this and about none with it, and a pass 10 to 30 % faster (bf16, all conditions: 0.27-0.36 against 0.38-0.40 s).
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
# Of a container (cgroups 2, then 1), in bytes: its limit, what it holds, and which of that are copies of files, which
# the system gives up when it must.
LIMITS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
# What torch says in a RuntimeError when memory ran out: on a GPU, and on the CPU of Linux, of Windows.
RAN_OUT = ("out of memory", "can't allocate memory", "not enough memory")


def keep_memory() -> bool:
    """Serve all blocks from the heap and never give it back. Returns whether the C library took it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def peak_mb() -> float:
    """Largest memory this process has held, in MB."""
    with suppress(ImportError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
    import psutil  # Windows has no resource module; accelerate brings psutil

    return round(getattr(psutil.Process().memory_info(), "peak_wset", 0) / 1e6, 1)


def available() -> int | None:
    """Bytes of the machine's memory that can still be had, swap too, a container's limit heeded; None: unknown."""
    try:
        import psutil  # accelerate brings it
    except ImportError:
        return None
    left = psutil.virtual_memory().available + psutil.swap_memory().free
    for folder, limit, used, files in LIMITS:
        with suppress(OSError, ValueError):  # there is no such file, or it says `max`
            most, now = (int(Path(folder, name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            left = min(left, most - now + int(stat.get(files, 0)))
    return max(left, 0)


def ran_out(error: BaseException) -> bool:
    """Whether `error` is a lack of memory, whoever found it."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(text in said for text in RAN_OUT))
