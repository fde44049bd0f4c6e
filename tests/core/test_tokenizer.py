"""CLIP's tokenizer: known ids, the budget, and what was cut."""

import gzip

import pytest

from tbd_core.cot_fa.tokenizer import (
    BEGIN,
    END,
    MERGES_FILE,
    byte_alphabet,
    count_tokens,
    cut_to_budget,
    encode,
)
from tbd_core.errors import InputError


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("A  Photo\n of a\tCAT ", [320, 1125, 539, 320, 2368]),
        ("", []),
    ],
)
def test_known_texts_have_clips_ids(text, ids):
    assert encode(text) == [BEGIN, *ids, END]


def test_begin_and_end_are_the_last_two_ids_of_the_vocabulary():
    with gzip.open(MERGES_FILE, "rt", encoding="utf-8") as file:
        merges = [line for line in file.read().split("\n") if line]
    assert len(merges) == 48894
    assert encode("") == [512 + len(merges), 513 + len(merges)]


def test_the_byte_alphabet_has_256_different_printable_characters():
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == len(alphabet) == 256
    assert alphabet[0] == "!"
    assert not any(c.isspace() for c in alphabet)


def test_words_do_not_change_their_neighbours_ids():
    first, second = "zygomaticus major", "it's 2 o'clock, naïve 😀"
    assert encode(f"{first} {second}") == encode(first)[:-1] + encode(second)[1:]


def test_count_is_the_length_of_the_ids():
    for text in ("", "hello", "orbicularis oculi, pars palpebralis"):
        assert count_tokens(text) == len(encode(text))


def test_special_words_in_a_text_are_plain_text():
    assert BEGIN not in encode("<|startoftext|>")[1:]
    assert END not in encode("a <|endoftext|> b")[:-1]


def test_a_short_text_is_padded_with_end_and_loses_nothing():
    ids, cut = cut_to_budget("a photo of a cat")
    assert ids == encode("a photo of a cat") + [END] * 70
    assert cut == ""


def test_a_text_of_exactly_the_budget_loses_nothing():
    assert cut_to_budget("cat " * 75) == ([BEGIN, *[2368] * 75, END], "")


def test_a_long_text_is_cut_at_the_budget_and_the_lost_words_are_quoted():
    ids, cut = cut_to_budget("cat " * 75 + "and Dog!")
    assert ids == [BEGIN, *[2368] * 75, END]
    assert cut == "and Dog!"


def test_a_word_cut_in_two_is_quoted_whole():
    word = "unbelievablyzyx"
    assert len(encode(word)) > 4
    ids, cut = cut_to_budget(f"a cat {word} here", budget=6)
    assert ids[:4] == [*encode("a cat")[:3], encode(word)[1]]
    assert len(ids) == 6
    assert cut == f"{word} here"


def test_a_budget_without_room_is_refused():
    with pytest.raises(InputError, match="budget of 2 tokens.*at least 3"):
        cut_to_budget("cat", budget=2)
