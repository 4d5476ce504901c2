"""Messages of several lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.entrypoints.cli.multiline import needs_more, unfold


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("你好", False),
        ("", False),
        ("one\\", True),
        ("one\\\ntwo", False),
        ('"""', True),
        ('"""one', True),
        ('"""one\n\ntwo', True),
        ('"""one"""', False),
        ('say """ here', False),
    ],
)
def test_enter_sends_only_a_finished_message(text: str, more: bool) -> None:
    assert needs_more(text) is more


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("你好", "你好"),
        ("one\\\ntwo", "one\ntwo"),
        ('"""\none\ntwo\n"""', "one\ntwo"),
        ('"""one"""', "one"),
        ("one\ntwo", "one\ntwo"),
        ("a \\ b", "a \\ b"),
        ("  code", "  code"),
    ],
)
def test_layout_marks_are_removed(typed: str, meant: str) -> None:
    assert unfold(typed) == meant


@given(st.text().filter(lambda text: "\\" not in text and not text.lstrip().startswith('"""')))
def test_a_message_without_marks_is_sent_as_it_is(text: str) -> None:
    assert not needs_more(text)
    assert unfold(text) == text


@given(
    st.text().filter(lambda text: '"""' not in text and not text.startswith('"') and not text.endswith('"'))
)
def test_what_stands_between_fences_is_kept(text: str) -> None:
    typed = f'"""{text}"""'
    assert not needs_more(typed)
    assert unfold(typed) == text.strip("\n")
