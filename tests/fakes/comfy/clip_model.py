"""CLIP's text encoder, under the names that its weights have in files."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class _Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int):
        super().__init__()
        self.heads = heads
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, inner), "fc2": nn.Linear(inner, width)})
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x):
        """x [B, N, D]; no token sees a later one."""
        seen = self.layer_norm1(x)
        parts = (self.self_attn[f"{name}_proj"](seen).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in "qkv")
        x = x + self.self_attn["out_proj"](
            scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
        )
        wide = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](wide * torch.sigmoid(1.702 * wide))


class _Text(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, layers: int):
        super().__init__()
        tables = {"token_embedding": nn.Embedding(49408, width), "position_embedding": nn.Embedding(77, width)}
        self.embeddings = nn.ModuleDict(tables)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_Layer(width, inner, heads) for _ in range(layers))})
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens):
        """[B, N] -> [B, N, D]."""
        x = self.embeddings["token_embedding"](tokens) + self.embeddings["position_embedding"].weight[: tokens.shape[1]]
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.final_layer_norm(x)


class CLIPTextModel(nn.Module):
    def __init__(self, config_dict, dtype, device, operations):
        super().__init__()
        shape = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
        width, *rest = (config_dict[name] for name in shape)
        self.text_model, self.dtype = _Text(width, *rest).to(dtype), dtype
        self.text_projection = nn.Linear(width, width, bias=False).requires_grad_(False)

    def forward(self, tokens):
        return self.text_model(tokens)
