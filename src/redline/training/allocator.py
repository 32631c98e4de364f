"""Keep freed memory: the C allocator gives pages back to the system and faults them in again."""

import ctypes
import sys

# malloc.h of the GNU C library; the values hold a training step's memory between steps.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 1 << 28}


def keep_freed_memory() -> None:
    """Tune the process' allocator for training on a CPU; does nothing without the GNU C library.

    ``bench/train_speed.py`` shows what it gives.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _SETTINGS.items():
            mallopt(setting, value)
