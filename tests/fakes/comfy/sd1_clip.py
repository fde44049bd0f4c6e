"""Text encoding: whole words as tokens, each numbered by its checksum; the network is the real one's shape."""

from __future__ import annotations

import zlib

import torch

from comfy.clip_model import CLIPTextModel


class SDTokenizer:
    def __init__(
        self, tokenizer_path=None, max_length=77, pad_with_end=True, embedding_directory=None, embedding_size=768,
        embedding_key="clip_l", tokenizer_class=None, has_start_token=True, has_end_token=True,
        pad_to_max_length=True, min_length=None, pad_token=None, end_token=None, min_padding=None, pad_left=False,
        disable_weights=False, tokenizer_data=None, tokenizer_args=None,
    ):  # fmt: skip
        self.max_length, self.pad_to_max_length = max_length, pad_to_max_length
        self.start_token, self.end_token, self.pad_token = 49406, 49407, 49407
        self.embedding_directory, self.embedding_size = embedding_directory, embedding_size

    def tokenize_with_weights(self, text: str, return_word_ids=False, tokenizer_options=None, **kwargs):
        """Rows of (token, weight) or (token, weight, word): begin, words, end, and padding to `max_length`."""
        words = [(zlib.crc32(word.encode()) % 49000, 1.0, i + 1) for i, word in enumerate(text.split())]
        room, rows = self.max_length - 2, []
        for start in range(0, max(len(words), 1), room):
            row = [(self.start_token, 1.0, 0), *words[start : start + room], (self.end_token, 1.0, 0)]
            if self.pad_to_max_length:
                row += [(self.pad_token, 1.0, 0)] * (self.max_length - len(row))
            rows.append(row if return_word_ids else [pair[:2] for pair in row])
        return rows


class SD1Tokenizer:
    def __init__(self, embedding_directory=None, tokenizer_data=None, clip_name="l", tokenizer=SDTokenizer, name=None):
        self.clip_name = name or clip_name
        one = tokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {})
        setattr(self, f"clip_{self.clip_name}", one)

    def tokenize_with_weights(self, text: str, return_word_ids=False, **kwargs):
        return {
            self.clip_name: getattr(self, f"clip_{self.clip_name}").tokenize_with_weights(
                text, return_word_ids, **kwargs
            )
        }


class SDClipModel(torch.nn.Module):
    def __init__(
        self, device="cpu", max_length=77, freeze=True, layer="last", layer_idx=None, textmodel_json_config=None,
        dtype=None, model_class=None, special_tokens=None, layer_norm_hidden_state=True,
        enable_attention_masks=False, zero_out_masked=False, return_projected_pooled=True,
        return_attention_masks=False, model_options=None,
    ):  # fmt: skip
        super().__init__()
        self.transformer = CLIPTextModel(textmodel_json_config, dtype, device, None)

    def encode_token_weights(self, token_weight_pairs):
        """([1, N, D], [1, D]): the rows one behind the other, and the first one's last token."""
        found = self.transformer(torch.tensor([[pair[0] for pair in row] for row in token_weight_pairs])).float()
        return found.flatten(0, 1)[None], found[:1, -1]

    def load_sd(self, sd):
        return self.transformer.load_state_dict(sd, strict=False)


class SD1ClipModel(torch.nn.Module):
    def __init__(
        self, device="cpu", dtype=None, model_options=None, clip_name="l", clip_model=SDClipModel, name=None, **kwargs
    ):
        super().__init__()
        self.clip_name, self.dtypes = name or clip_name, {dtype}
        one = clip_model(device=device, dtype=dtype, model_options=model_options or {}, **kwargs)
        setattr(self, f"clip_{self.clip_name}", one)

    def set_clip_options(self, options):
        """The last layer is the only one."""

    def reset_clip_options(self):
        """The last layer is the only one."""

    def encode_token_weights(self, token_weight_pairs):
        return getattr(self, f"clip_{self.clip_name}").encode_token_weights(token_weight_pairs[self.clip_name])

    def load_sd(self, sd):
        return getattr(self, f"clip_{self.clip_name}").load_sd(sd)
