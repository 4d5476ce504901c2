from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.conversation import Message, Role, ToolCall
from glm3.domain.errors import InvalidInputError
from glm3.domain.tool_call import fenced_code, format_tool_call, parse_tool_call

texts = st.text(st.characters(codec="utf-8"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts | st.sampled_from(["'", '"', "```", "a\n#b", "\\", "tool_call(", "'''"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
names = st.sampled_from(["city", "from", "class", "k1", "k0", "城市", "_x", "None"])


def arguments_of(text: str) -> object:
    call = parse_tool_call("tool", text)
    assert isinstance(call, ToolCall), call
    assert call.name == "tool"
    return call.arguments


@given(arguments=st.dictionaries(names, json_values, max_size=4))
def test_a_written_call_is_read_back(arguments):
    message = format_tool_call("tool", arguments)
    assert arguments_of(message.content) == arguments


def test_the_form_of_a_written_call():
    assert format_tool_call("track", {"symbol": "10111", "n": 1}) == Message(
        Role.ASSISTANT, "```python\ntool_call(symbol='10111', n=1)\n```", "track"
    )


@pytest.mark.parametrize(
    "text",
    [
        "tool_call(a='x', n=-1)",
        "```python\ntool_call(a='x', n=-1)\n```",
        " ```python\ntool_call(a='x', n=-1)\n```",
        "```\ntool_call(a='x', n=-1)\n```\n",
        "```python\ntool_call(a='x', n=-1)",
        "```python tool_call(a='x', n=-1)```",
        "I'll look.\n```python\ntool_call(a='x', n=-1)\n```\nOne moment, it's quick.",
        "I'll call tool_call(a='x', n=-1) now.",
        'tool_call(a="x",n=-1,)',
        "tool_call(\n    a='x',  # it's the (first)\n    n=-1,\n)",
        "tool_call(a='''x''', n=-1)",
        "tool_call (a = 'x', n = - 1)",
        "tool_call(# none (\n a='x', n=-1)",
    ],
)
def test_the_ways_a_call_is_written_mean_the_same(text):
    assert arguments_of(text) == {"a": "x", "n": -1}


def test_every_kind_of_literal():
    text = (
        "tool_call(l=[1, (2, 3)], d={'k': {'l': None}}, t=True, f=false, n=null, x=+1.5e3, s='a' 'b', e=())"
    )
    assert arguments_of(text) == {
        "l": [1, [2, 3]], "d": {"k": {"l": None}}, "t": True, "f": False, "n": None,
        "x": 1500.0, "s": "ab", "e": [],
    }  # fmt: skip


def test_a_call_without_arguments():
    assert arguments_of("tool_call()") == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no tool_call"),
        ("你好", "no tool_call"),
        ("os.tool_call(a=1)", "no tool_call"),
        ("tool_call(a='x', b=", "cut off"),
        ("```python\ntool_call(a='x", "not closed"),
        ("tool_call('x')", "by name"),
        ("tool_call(*[1])", "by name"),
        ("tool_call(**{'a': 1})", "by name"),
        ("tool_call(a==1)", "by name"),
        ("tool_call(a=1, a=2)", "more than once"),
        ("tool_call(a=1)\ntool_call(a=2)", "more than one call"),
        ("tool_call(a=1)(b=2)", "longer expression"),
        ("tool_call(a=1).b", "longer expression"),
        ("tool_call(a=1) + open('x')", "longer expression"),
        ("tool_call(a=1) or exit()", "longer expression"),
        ("tool_call(a=__import__('os').system('true'))", "not a literal"),
        ("tool_call(a=b)", "not a literal"),
        ("tool_call(a=tool_call)", "not a literal"),
        ("tool_call(a=f'{exit()}')", "not a literal"),
        ("tool_call(a=[x for x in 'ab'])", "not a literal"),
        ("tool_call(a=lambda: 1)", "not a literal"),
        ("tool_call(a=1 + 1)", "not a literal"),
        ("tool_call(a=10 ** 10 ** 10)", "not a literal"),
        ("tool_call(a='x' * 10 ** 10)", "not a literal"),
        ("tool_call(a=-'x')", "not a literal"),
        ("tool_call(a=-True)", "truth value"),
        ("tool_call(a={1, 2})", "not a literal"),
        ("tool_call(a={1: 2})", "not text"),
        ("tool_call(a={**{}})", "not text"),
        ("tool_call(a=b'x')", "not plain JSON"),
        ("tool_call(a=1j)", "not plain JSON"),
        ("tool_call(a=...)", "not plain JSON"),
        ("tool_call(a=1e999)", "not finite"),
        ("tool_call(a='\\ud800')", "surrogate"),
        ("tool_call(a={'\\ud800': 1})", "surrogate"),
        ("tool_call(a=0x" + "f" * 5000 + ")", "too many digits"),
        ("tool_call(a=" + "1" * 5000 + ")", "not a valid expression"),
        ("tool_call(a=" + "[" * 40 + "]" * 40 + ")", "nested more than"),
        ("tool_call(a=" + "-" * 100_000 + "1)", "nested too deeply"),
        ("tool_call(a=" + "[" * 50_000 + "]" * 50_000 + ")", "not a valid expression"),
        ("tool_call(a=1; b=2)", "not a valid expression"),
        ("tool_call(a=1 b=2)", "not a valid expression"),
        ("tool_call(a=\0)", "not a valid expression"),
        ("tool_call(a='" + "x" * 200_000 + "')", "longer than"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_no_call_is_a_reason(text, reason):
    found = parse_tool_call("tool", text)
    assert isinstance(found, str)
    assert reason in found


def test_odd_escapes_are_kept_without_a_warning():
    assert arguments_of(r"tool_call(a='\d+')") == {"a": r"\d+"}


@given(
    text=st.text("tol_ca(k='\"#\\[]{}:,.-1e\n`)") | st.text(),
    head=st.sampled_from(["", "tool_call(", "```python\ntool_call(a=", "tool_call(a='x', "]),
)
def test_no_text_raises(text, head):
    assert isinstance(parse_tool_call("tool", head + text), (ToolCall, str))


@pytest.mark.parametrize("arguments", [{"a b": 1}, {"1a": 1}, {"": 1}, {"a=1, b": 1}, {"a\n": 1}])
def test_a_name_that_is_no_identifier_is_refused(arguments):
    with pytest.raises(InvalidInputError, match="identifier"):
        format_tool_call("tool", arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1}, {1: 2}, b"x", object(), [1j], "\ud800"])
def test_a_value_that_is_not_json_is_refused(value):
    with pytest.raises(InvalidInputError) as caught:
        format_tool_call("tool", {"a": value})
    assert caught.value.field == "tool.a"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("text\n```\nprint(1)", "print(1)"),
        ("```python\nprint('```')\n```\n", "print('```')\n"),
        ("print(1)", None),
    ],
)
def test_fenced_code(text, code):
    assert fenced_code(text) == code
