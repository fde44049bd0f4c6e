"""CLIP's byte-pair tokenizer: text -> the ids that the text encoder reads, without transformers or torch.

The merges are shipped as data (`assets/clip_bpe`, from OpenAI CLIP's vocabulary, MIT; see the NOTICE there);
the work is done by the `tokenizers` library, imported when first used.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

from ..errors import InputError, needed_packages
from ..units import TEXT_TOKENS


MERGES_FILE = Path(__file__).resolve().parent.parent / "assets" / "clip_bpe" / "merges.txt.gz"
BEGIN = 49406
END = 49407  # also what the rest of the budget is filled with, as in SD 1.5
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # how CLIP splits a text


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for the bytes, in the order of their token ids (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


@lru_cache(maxsize=1)
def _tokenizer():
    """The `tokenizers.Tokenizer`, loaded once; about 0.1 s."""
    with needed_packages():
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    if not MERGES_FILE.is_file():
        raise InputError(f"{MERGES_FILE} is missing; install the package again, the file ships with it")
    with gzip.open(MERGES_FILE, "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    merges = [(first, second) for first, _, second in (line.partition(" ") for line in lines if line)]
    alphabet = byte_alphabet()
    words = alphabet + [c + "</w>" for c in alphabet] + [a + b for a, b in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def encode(text: str) -> list[int]:
    """Ids of `text`, lowercased and with white space collapsed, between BEGIN and END; any length."""
    return [BEGIN, *_tokenizer().encode(text).ids, END]


def count_tokens(text: str) -> int:
    """Tokens of `text`, begin and end included: what CLIP's budget of 77 counts."""
    return len(_tokenizer().encode(text).ids) + 2


def cut_to_budget(text: str, budget: int = TEXT_TOKENS) -> tuple[list[int], str]:
    """(ids, words cut): `budget` ids, padded with END, and the end of `text` that did not fit (or "").

    The cut is CLIP's own (the first `budget - 2` tokens stay); a word cut in two is quoted whole.
    """
    if budget < 3:
        raise InputError(f"a budget of {budget} tokens holds no word; at least 3 are needed")
    encoding = _tokenizer().encode(text)
    room = budget - 2
    ids = [BEGIN, *encoding.ids[:room], END]
    ids += [END] * (budget - len(ids))
    if len(encoding.ids) <= room:
        return ids, ""
    start = encoding.offsets[room][0]
    while start > 0 and not text[start - 1].isspace():
        start -= 1
    return ids, text[start:].strip()
