"""The progress bar, and small change."""

from __future__ import annotations

from functools import reduce


PROGRESS_BAR_ENABLED = False
PROGRESS_BAR_HOOK = None  # (value, total, preview, node_id=None); ComfyUI's own raises when a person cancels


def set_progress_bar_global_hook(function):
    global PROGRESS_BAR_HOOK
    PROGRESS_BAR_HOOK = function


class ProgressBar:
    def __init__(self, total, node_id=None):
        self.total, self.current, self.node_id = total, 0, node_id
        self.hook = PROGRESS_BAR_HOOK

    def update_absolute(self, value, total=None, preview=None):
        self.total = self.total if total is None else total
        self.current = min(value, self.total)
        if self.hook is not None:
            self.hook(self.current, self.total, preview, node_id=self.node_id)

    def update(self, value):
        self.update_absolute(self.current + value)


def get_attr(obj, attr: str):
    return reduce(getattr, attr.split("."), obj)


def repeat_to_batch_size(tensor, batch_size, dim=0):
    size = tensor.shape[dim]
    times = [1] * tensor.ndim
    times[dim] = -(-batch_size // size)
    return tensor if size == batch_size else tensor.repeat(times).narrow(dim, 0, batch_size)
