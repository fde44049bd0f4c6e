"""What goes from a conditioning into the network, and how it meets a batch of frames."""

import torch

from comfy.utils import repeat_to_batch_size


class CONDRegular:
    def __init__(self, cond):
        self.cond = cond

    def process_cond(self, batch_size, **kwargs):
        return type(self)(repeat_to_batch_size(self.cond, batch_size))

    def can_concat(self, other):
        return self.cond.shape == other.cond.shape

    def concat(self, others):
        return torch.cat([self.cond, *(other.cond for other in others)])

    def size(self):
        return list(self.cond.shape)


class CONDCrossAttn(CONDRegular):
    pass


class CONDConstant(CONDRegular):
    def process_cond(self, batch_size, **kwargs):
        return self

    def can_concat(self, other):
        return not (self.cond != other.cond)  # noqa: SIM202  `!=` is what ComfyUI asks, and what tensors trip over

    def concat(self, others):
        return self.cond

    def size(self):
        return [1]
