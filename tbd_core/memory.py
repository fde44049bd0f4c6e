"""Let the process keep its memory between steps (glibc; elsewhere nothing happens).

Every step of a network frees and asks again for the same large blocks. By default glibc gives them back to the system
each time, and each is then faulted in anew, page by page: measured 20 to 30 times slower under memory pressure.
"""

from __future__ import annotations

import ctypes
import sys


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_memory() -> bool:
    """Serve all blocks from the heap and never give it back. Returns whether the C library took it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
