"""The words of the chat page, and the files it is made of."""

from __future__ import annotations

import re

import pytest

from glm3.entrypoints.http.page_files import FOLDER

WORDS = (FOLDER / "words.js").read_text(encoding="utf-8")
MARKUP = (FOLDER / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.js")}


def words_of(language: str) -> dict[str, str]:
    block = WORDS.split(f"  {language}: {{\n")[1].split("\n  },")[0]
    return dict(re.findall(r'(\w+): "([^"]*)"', block))


def test_both_languages_have_the_same_words_with_the_same_gaps():
    english, chinese = words_of("en"), words_of("zh")
    assert len(english) > 80
    assert list(english) == list(chinese)
    gaps = re.compile(r"\{\w+\}")
    assert [sorted(gaps.findall(text)) for text in english.values()] == [
        sorted(gaps.findall(text)) for text in chinese.values()
    ]


def test_every_word_that_is_named_is_there_and_every_word_is_named():
    named = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', MARKUP))
    code = "\n".join(text for name, text in SCRIPTS.items() if name != "words.js")
    named |= set(re.findall(r'(?:say|button)\("(\w+)"', code))
    known = set(words_of("en"))
    assert named <= known
    assert [key for key in known - named if f'"{key}"' not in code] == []


def test_the_english_in_the_markup_is_that_of_the_words():
    shown = dict(re.findall(r'data-text="(\w+)"[^>]*>([^<]*)<', MARKUP))
    assert len(shown) > 20
    assert shown == {key: words_of("en")[key] for key in shown}


def test_every_id_that_a_script_looks_up_is_in_the_markup():
    pattern = re.compile(r'(?:byId|getElementById)\("([\w-]+)"\)')
    asked = {name for text in SCRIPTS.values() for name in pattern.findall(text)}
    assert len(asked) > 20
    assert asked <= set(re.findall(r'\bid="([\w-]+)"', MARKUP))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_make_no_markup_of_text_and_load_nothing_foreign(name):
    makes_markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser"
    assert not re.search(makes_markup, SCRIPTS[name])
    assert "import(" not in SCRIPTS[name]
    imported = re.findall(r'^import [^;]*"([^"]+)";$', SCRIPTS[name], re.MULTILINE)
    assert len(imported) == SCRIPTS[name].count("\nimport ")
    assert set(imported) <= {f"./{other}" for other in SCRIPTS}
