"""What the page gets from us: one script, a help page for each node, and the nodes' words in three languages."""

import json
import re
import runpy
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "web" / "docs"
LANGUAGES = ("en", "zh", "ja")
NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def writer() -> dict:
    return runpy.run_path(str(ROOT / "locales" / "build.py"))


@pytest.fixture(scope="module")
def told(writer) -> dict:
    """Our nodes of the snapshot; test_workflows.py holds it against the schemas."""
    return writer["own_nodes"]()


@pytest.fixture(scope="module")
def words() -> dict[str, dict]:
    return {
        lang: json.loads((ROOT / "locales" / lang / "nodeDefs.json").read_text("utf-8")) for lang in LANGUAGES
    }  # fmt: skip


@pytest.fixture(scope="module")
def script() -> str:
    return (ROOT / "web" / "js" / "tbd.js").read_text("utf-8")


def texts(words: dict) -> dict[str, str]:
    """Every text by its place: `TBDSampler.inputs.seed.tooltip`."""
    found = {}
    for key, value in words.items():
        found |= {f"{key}.{k}": v for k, v in texts(value).items()} if isinstance(value, dict) else {key: value}
    return found


def test_english_is_what_the_schemas_say(writer, told, words):
    assert words["en"] == writer["english"](told), "run: python locales/build.py"


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_a_translation_has_every_text_and_no_other(words, lang):
    assert texts(words[lang]).keys() == texts(words["en"]).keys()
    assert [place for place, text in texts(words[lang]).items() if not text.strip()] == []


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_a_translation_is_one_and_says_the_same_numbers(words, lang):
    translated = texts(words[lang])
    for place, text in texts(words["en"]).items():
        if place.endswith(("tooltip", "description")):
            assert translated[place] != text, place
            assert sorted(set(NUMBER.findall(text))) == sorted(set(NUMBER.findall(translated[place]))), place


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_a_translation_keeps_the_words_of_a_menu_as_the_menu_has_them(told, words, lang):
    for name, info in told.items():
        for id, spec in info["input"].get("required", {}).items():
            for word in spec[1].get("options", ()) if spec[0] == "COMBO" else ():
                said = re.compile(rf"\b{re.escape(word)}\b")
                if said.search(words["en"][name]["inputs"][id]["tooltip"]):
                    assert word in words[lang][name]["inputs"][id]["tooltip"], f"{name}.{id}: {word}"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_category_has_a_name_in_every_language(told, lang):
    names = json.loads((ROOT / "locales" / lang / "main.json").read_text("utf-8"))["nodeCategories"]
    assert names.keys() == {info["category"] for info in told.values()}


def test_each_node_has_a_help_page_and_each_page_a_node(told):
    assert sorted(path.stem for path in DOCS.glob("*.md")) == sorted(told)


def test_the_tables_of_the_help_pages_are_the_schemas(writer, told):
    for name, info in told.items():
        text = (DOCS / f"{name}.md").read_text("utf-8")
        assert text == writer["page"](text, name, info), "run: python locales/build.py"
        assert text.startswith(f"# {info['display_name']}\n")


def test_help_links_to_nothing_that_would_leave_the_page_and_to_no_missing_picture(told):
    for name in told:
        for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)]*)\)", (DOCS / f"{name}.md").read_text("utf-8")):
            assert (DOCS / target).is_file() if picture else target.startswith("https://"), f"{name}: {target}"


def test_a_message_that_help_quotes_is_one_that_the_program_says(told):
    """By its fixed parts: a quoted number or … stands for whatever is there."""
    sources = [*ROOT.glob("nodes/*.py"), *ROOT.glob("tbd_core/**/*.py")]
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text("utf-8") for path in sources))
    for name in told:
        for message in re.findall(r"^\| `([^`]+)` \|", (DOCS / f"{name}.md").read_text("utf-8"), re.MULTILINE):
            if " " not in message:  # a word of a menu
                continue
            for part in re.split(r"…|'|\d+(?:\.\d+)?", message):
                assert part.strip() in said, f"{name}: {message}"


def test_one_script_registers_one_extension_and_imports_only_the_pages_two_modules(script):
    assert [str(path.relative_to(ROOT / "web")) for path in (ROOT / "web").rglob("*.js")] == ["js/tbd.js"]
    assert script.count("registerExtension(") == 1
    # Three folders up: /extensions/<pack>/js/tbd.js -> /scripts.
    assert re.findall(r'from "([^"]+)"', script) == ["../../../scripts/app.js", "../../../scripts/api.js"]


def test_the_script_touches_only_nodes_of_ours_and_no_prototype(script, told):
    assert set(re.findall(r'"(TBD\w+)"', script)) == {"TBDPromptBuilder", "TBDEditPrompts"} <= told.keys()
    for forbidden in ("prototype", "eval(", "innerHTML", "onDraw", "computeSize", "fetch("):
        assert forbidden not in script


def test_what_the_script_adds_is_neither_saved_nor_sent(script):
    assert script.count("addDOMWidget(") == 1 and "addWidget(" not in script
    assert "serialize: false" in script and "view.serialize = false" in script


def test_the_script_speaks_the_languages_of_the_locales_equally(script):
    blocks = {lang: re.search(rf"^  {lang}: {{\n(.*?)^  }},", script, re.MULTILINE | re.DOTALL) for lang in LANGUAGES}
    keys = {lang: re.findall(r"^    (\w+):", found[1], re.MULTILINE) for lang, found in blocks.items() if found}
    assert keys.keys() == set(LANGUAGES)
    assert keys["en"] == keys["zh"] == keys["ja"]
    assert set(re.findall(r'word\("(\w+)"\)', script)) <= set(keys["en"])
