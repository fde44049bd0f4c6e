"""Attention as torch does it."""

import torch


def attention_pytorch(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """[B, heads, N, D] with skip_reshape, else [B, N, heads·D]; the result likewise with skip_output_reshape."""
    if not skip_reshape:
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return found if skip_output_reshape else found.transpose(1, 2).flatten(2)


optimized_attention = attention_pytorch
