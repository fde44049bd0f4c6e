"""Batches: the order of the cases, their end, their names, and everything that can be wrong with what is typed."""

import os
import re
from pathlib import Path

import pytest

from tbd_core.batch import SAMPLE_PORTRAIT, SAMPLE_SPEECH, Case, Cases, read_cases, watch
from tbd_core.errors import InputError
from tbd_core.facs.emotions import EMOTIONS, INTENSITIES


HEADER = "portrait,speech,emotion,intensity\n"


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder as ComfyUI's input: two portraits, two recordings, something else."""
    for name in ("faces/anna.png", "faces/Bob.JPG", "faces/notes.txt", "faces/.hidden.png", "voices/hi.wav", "yes.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "nothing").mkdir()
    return tmp_path


def refused(message: str, read=read_cases, *arguments, **options) -> str:
    with pytest.raises(InputError, match=message) as caught:
        read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(root: Path, text: str, name="cases.csv", encoding="utf-8") -> Path:
    path = root / name
    path.write_text(text, encoding=encoding)
    return path


# What the cases are.


def test_every_combination_comes_once_and_the_last_list_turns_fastest():
    cases = Cases.from_lists([Path("a.png"), Path("b.png")], [Path("x.wav"), Path("y.wav")], ["sad", "joy"], ["1", "3"])
    found = [cases.case(i) for i in range(len(cases))]
    assert [(c.portrait.stem, c.speech.stem, c.emotion, c.intensity) for c in found] == [
        (p, s, e, i) for p in "ab" for s in "xy" for e in ("sad", "happy") for i in ("Mild", "Intense")
    ]
    assert [(c.index, c.total) for c in found] == [(i, 16) for i in range(16)]


def test_neutral_has_no_intensity_and_counts_once():
    cases = Cases.from_lists([Path("a.png")], [Path("x.wav")], ["neutral", "sad", "Sadness", "neu"], list("123"))
    found = [cases.case(i) for i in range(len(cases))]
    assert [(c.emotion, c.intensity) for c in found] == [("neutral", "Moderate"), *(("sad", i) for i in INTENSITIES)]
    assert (found[0].name, str(found[0])) == ("0000_a_x_neutral", "1 of 4: a.png, x.wav, neutral")
    assert (found[3].name, str(found[3])) == ("0003_a_x_sad_Intense", "4 of 4: a.png, x.wav, sad, Intense")


def test_past_the_last_case_the_batch_says_that_it_is_done():
    cases = Cases.from_lists([Path("a.png")], [Path("x.wav")], ["sad"], list("123"))
    assert cases.case(2).index == 2
    for index in (3, 4, 10**9):
        refused("^all 3 cases done; set index to 0 to begin again$", cases.case, index)
    refused("index is -1; the first case is 0, the last 2", cases.case, -1)


def test_a_million_cases_are_not_made_to_find_one():
    many = [Path(f"{i}.png") for i in range(1000)]
    cases = Cases.from_lists(many, [path.with_suffix(".wav") for path in many], EMOTIONS, INTENSITIES)
    assert len(cases) == 1000 * 1000 * 22
    last = cases.case(len(cases) - 1)
    assert (last.portrait.name, last.speech.name, last.emotion) == ("999.png", "999.wav", "neutral")


@pytest.mark.parametrize("empty", range(4))
def test_an_empty_list_is_said(empty):
    lists = [[Path("a.png")], [Path("x.wav")], ["sad"], ["Mild"]]
    lists[empty] = []
    name = ("portraits", "speeches", "emotions with intensities", "emotions with intensities")[empty]
    refused(f"there are 0 {name}; give at least 1", Cases.from_lists, *lists)


def test_names_of_cases_are_fit_for_every_disk_and_never_the_same():
    strange = Case(7, 9, Path("in/a/b: 'Zoë' & <co>?.png"), Path("v1.2.wav"), "happy", "Mild")
    assert strange.name == "0007_b-Zoë-co-_v1.2_happy_Mild"
    long = Case(12345, 99999, Path("ö" * 120 + ".png"), Path("語" * 80 + ".wav"), "surprised", "Moderate")
    assert len(long.name.encode()) < 160 and re.fullmatch(r"[\w.-]+", long.name)
    same = Cases.from_lists([Path("a/face.png"), Path("b/face.png")], [Path("x.wav")], ["sad"], ["1"])
    assert same.case(0).name != same.case(1).name


# What a person types.


def test_folders_give_what_fits_in_the_order_of_the_names(root):
    cases = read_cases(root, "faces", "voices\nyes.mp3", "sad", "Mild")
    found = [cases.case(i) for i in range(len(cases))]
    assert [(c.portrait.name, c.speech.name) for c in found] == [
        (p, s) for p in ("Bob.JPG", "anna.png") for s in ("hi.wav", "yes.mp3")
    ]
    assert all(c.portrait.is_file() and c.speech.is_file() for c in found)


def test_lines_may_be_absolute_quoted_repeated_or_of_any_suffix(root):
    text = f'\n  "{root / "faces" / "anna.png"}"  \nfaces/notes.txt\n\nfaces/anna.png\n'
    cases = read_cases(root, text, "yes.mp3", "sad", "Mild")
    assert [cases.case(i).portrait.name for i in range(len(cases))] == ["anna.png", "notes.txt"]


def test_blank_fields_take_the_sample_and_all_means_all(root):
    cases = read_cases(root)
    assert len(cases) == 7 * 3 + 1
    assert (cases.case(0).portrait, cases.case(0).speech) == (SAMPLE_PORTRAIT, SAMPLE_SPEECH)
    assert SAMPLE_PORTRAIT.is_file() and SAMPLE_SPEECH.is_file()
    assert [cases.case(i).emotion for i in range(0, 22, 3)] == list(EMOTIONS)


def test_emotions_and_intensities_in_any_spelling_between_any_commas(root):
    cases = read_cases(root, emotions="Joy, anger;fearful\nHAP,", intensities="level_3\nmild")
    found = [cases.case(i) for i in range(len(cases))]
    assert [(c.emotion, c.intensity) for c in found] == [
        (e, i) for e in ("happy", "angry", "fear") for i in ("Intense", "Mild")
    ]


def test_all_that_is_wrong_is_said_at_once(root):
    said = refused(
        "^4 faults in the batch: ", read_cases, root, "faces\ngone.png\nnothing", "faces/..\nyes.mp3", "hapy", " , "
    )
    for part in (
        "portraits line 2: gone.png does not exist",
        "portraits line 3: of 0 files in nothing none ends in .png .jpg",
        "emotions: unknown emotion 'hapy'; did you mean happy?",
        "intensities is blank; give all, or one or more of Mild, Moderate, Intense",
    ):
        assert part in said


def test_a_name_that_no_disk_takes_is_a_fault_like_others(root):
    refused(r"1 fault in the batch: portraits line 1: n+ cannot be read \(", read_cases, root, "n" * 5000)


# A CSV.


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_gives_its_lines_as_they_stand(root, mark, encoding):
    lines = (
        "Intensity , note,emotion,portrait,speech\n1,x,sad,faces/anna.png,yes.mp3\n\n,,Neutral,faces/Bob.JPG,yes.mp3\n"
    )
    table(root, lines.replace(",", mark), encoding=encoding)
    cases = read_cases(root, "gone.png", emotions="nonsense", csv=" cases.csv ")  # the four fields do not count
    assert [str(cases.case(i)) for i in range(len(cases))] == [
        "1 of 2: anna.png, yes.mp3, sad, Mild",
        "2 of 2: Bob.JPG, yes.mp3, neutral",
    ]
    refused("all 2 cases done", cases.case, 2)


def test_files_of_a_csv_lie_beside_it(root):
    table(root, HEADER + "anna.png,../yes.mp3,sad,1\n", "faces/cases.csv")
    case = read_cases(root, csv="faces/cases.csv").case(0)
    assert case.portrait.is_file() and case.speech.is_file()


def test_every_fault_of_a_csv_is_said_with_its_line(root):
    rows = "faces/anna.png,gone.wav,sad,1\n\n,yes.mp3,hapy,5\nfaces,yes.mp3\nfaces/anna.png,yes.mp3,sad,Mild\n"
    said = refused("^7 faults in cases.csv: ", Cases.from_csv, table(root, HEADER + rows))
    for part in (
        "line 2: speech gone.wav does not exist",
        "line 4: portrait is blank",
        "line 4: unknown emotion 'hapy'; did you mean happy?",
        "line 4: unknown intensity '5'; choose one of",
        "line 5: portrait faces is a folder, no file",
        "line 5: the emotion is blank; choose one of",
        "line 5: unknown intensity ''",
    ):
        assert part in said, said


def test_of_many_faults_the_first_eight_are_shown(root):
    said = refused("^12 faults in", Cases.from_csv, table(root, HEADER + "gone.png,yes.mp3,sad,1\n" * 12))
    assert said.count("does not exist") == 8 and said.endswith(" | and 4 more")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "portrait,emotion\n",
            "cases.csv line 1 lacks 2 of 4 columns: speech, intensity; begin with the line portrait,",
        ),
        ("\n", "cases.csv line 1 lacks 4 of 4 columns"),
        ("\ufeff", "cases.csv line 1 lacks 4 of 4 columns"),
        (HEADER + "\n,,,\n", "cases.csv has a header and 0 cases; give each its own line"),
        ("", r"cases.csv is empty \(0 bytes\); give a CSV with the columns portrait, speech, emotion, intensity"),
    ],
)
def test_a_csv_without_header_or_lines_is_refused(root, text, message):
    refused(message, Cases.from_csv, table(root, text))


def test_a_csv_that_is_not_there_or_not_text_is_refused(root):
    refused("gone.csv does not exist; give a CSV", read_cases, root, csv="gone.csv")
    refused("faces is a folder; give a CSV", read_cases, root, csv="faces")
    table(root, HEADER, encoding="utf-16")
    refused(r"cases.csv cannot be read as CSV \(.*0xff.*\); save it as CSV in UTF-8", read_cases, root, csv="cases.csv")


# What changes.


def test_the_watch_sees_the_case_s_own_files_and_words_and_nothing_else(root):
    def seen(index: int | None = 0, **changed):
        return watch(root, index, **{"portraits": "faces", "speeches": "yes.mp3", "emotions": "sad", **changed})

    first, last = seen(0), seen(3)
    assert first == seen(0) and first != seen(1) and seen(None) == seen(None)
    os.utime(root / "faces" / "Bob.JPG", ns=(1, 1))
    assert seen(0) != first and seen(3) == last
    (root / "yes.mp3").write_bytes(b"longer")
    assert seen(3) != last
    assert seen(0) != seen(0, emotions="angry")
    before = seen(None), seen(0)
    (root / "faces" / "zoe.png").write_bytes(b"x")
    assert seen(None) != before[0] and seen(0) != before[1]  # the total is part of what the node says


def test_the_watch_never_raises(root):
    assert watch(root, 0, portraits="gone.png", csv=None).startswith("1 fault in the batch: portraits line 1: gone.png")
    assert watch(root, 22) == "all 22 cases done; set index to 0 to begin again"
    assert watch(root, None, csv="gone.csv").endswith("emotion, intensity")
