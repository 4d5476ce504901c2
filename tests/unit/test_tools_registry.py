"""Functions as tools: definitions from hints, arguments checked against them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.errors import Glm3Error, InvalidInputError, MultipleFaultsError
from glm3.domain.tools.tool import tool_from
from glm3.domain.tools.toolbox import Toolbox


def forecast(
    city: Annotated[str, "name of the city"],
    days: int = 3,
    unit: Literal["C", "F"] = "C",
    stations: list[float] | None = None,
    exact: Optional[bool] = None,  # noqa: UP045  # the older spelling must work too
) -> str:
    """Tell the weather
    of the next days.

    More for programmers.

    Args:
        city: this is overruled by the annotation.
        days (int): how many days,
            today included.
        unit: of the temperature.

    Returns:
        exact: nothing of a parameter.
    """
    return f"{city} {days} {unit} {stations} {exact}"


def test_hints_and_docstring_define_the_tool() -> None:
    assert tool_from(forecast).spec.definition == {
        "name": "forecast",
        "description": "Tell the weather of the next days.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "name of the city"},
                "days": {"type": "integer", "description": "how many days, today included.", "default": 3},
                "unit": {
                    "type": "string",
                    "enum": ["C", "F"],
                    "description": "of the temperature.",
                    "default": "C",
                },
                "stations": {"type": "array", "items": {"type": "number"}},
                "exact": {"type": "boolean"},
            },
            "required": ["city"],
        },
    }


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ({"city": "青岛"}, {"city": "青岛"}),
        ({"city": 5, "days": "2"}, {"city": "5", "days": 2}),
        ({"city": "a", "days": 2.0, "unit": "F"}, {"city": "a", "days": 2, "unit": "F"}),
        ({"city": "a", "stations": [1, "2.5"]}, {"city": "a", "stations": [1.0, 2.5]}),
        ({"city": "a", "stations": None, "exact": "True"}, {"city": "a", "stations": None, "exact": True}),
    ],
)
def test_values_are_read_as_the_hinted_types(given_value: dict[str, Any], expected: dict[str, Any]) -> None:
    bound = tool_from(forecast).bind(given_value)
    assert bound == expected
    assert [type(value) for value in bound.values()] == [type(value) for value in expected.values()]


def test_all_wrong_arguments_are_named_together() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        tool_from(forecast).bind({"days": "many", "unit": "K", "stations": [1, "x"], "town": "a"})
    text = str(caught.value)
    assert "town: no such argument (expected city, days, unit, stations, exact)" in text
    assert "city: is missing" in text
    assert "days: wrong (expected a number, found 'many')" in text
    assert "unit: wrong (expected one of 'C', 'F', found 'K')" in text
    assert "stations: wrong (expected a list with a number at [1]" in text


def test_large_whole_numbers_stay_exact() -> None:
    def count(n: int, x: float = 0.0) -> str:
        """Count."""
        return ""

    assert tool_from(count).bind({"n": 2**60 + 1}) == {"n": 2**60 + 1}
    with pytest.raises(InvalidInputError, match="x: wrong"):
        tool_from(count).bind({"n": 1, "x": 10**400})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["city", "days", "unit", "stations", "exact", "other"])


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_whatever_a_model_gives_is_of_the_hinted_type_or_refused(arguments: dict[str, Any]) -> None:
    try:
        bound = tool_from(forecast).bind(arguments)
    except Glm3Error:
        return
    assert isinstance(bound["city"], str)
    assert type(bound.get("days", 3)) is int
    assert bound.get("unit", "C") in ("C", "F")
    assert bound.get("stations") is None or all(type(each) is float for each in bound["stations"])
    assert type(bound.get("exact", None)) in (bool, type(None))


def no_docstring(x: int) -> int:
    return x


def no_hint(x) -> int:  # type: ignore[no-untyped-def]
    """Take x."""
    return 1


def odd_hint(x: dict[str, int]) -> int:
    """Take x."""
    return 1


def star(*x: int) -> int:
    """Take x."""
    return 1


async def later(x: int) -> int:
    """Take x."""
    return 1


def unknown_hint(x: Unknown) -> int:  # type: ignore[name-defined]  # noqa: F821
    """Take x."""
    return 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_docstring, "no_docstring: has no docstring"),
        (no_hint, "no_hint.x: has no type hint"),
        (odd_hint, r"odd_hint.x: unusable type hint \(expected str, int, float, bool"),
        (star, "star.x: cannot be given by name"),
        (later, "later: is asynchronous"),
        (unknown_hint, "unknown_hint: its hints cannot be read"),
        (functools.partial(forecast, days=1), "not a name for a tool"),
    ],
)
def test_what_cannot_be_a_tool_says_why(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        tool_from(function)


def test_methods_and_callable_objects_are_tools_too() -> None:
    class Counter:
        def __call__(self, step: int) -> int:
            """Count on."""
            return step

        def reset(self, to: int = 0) -> int:
            """Start anew."""
            return to

    assert tool_from(Counter().reset).spec.definition["parameters"]["properties"].keys() == {"to"}
    tool = tool_from(Counter(), "count")
    assert tool.name == "count"
    assert tool.spec.definition["description"] == "Count on."
    assert tool.spec.definition["parameters"]["required"] == ["step"]


def test_a_box_knows_its_tools_by_name() -> None:
    box = Toolbox([forecast])
    box.add(forecast, "weather")
    assert [tool.name for tool in box.select(["weather", "forecast", "weather"])] == ["weather", "forecast"]
    with pytest.raises(
        InvalidInputError, match=r"no such tool \(expected forecast, weather, found os.system\)"
    ):
        box.select(["os.system"])
    with pytest.raises(InvalidInputError, match="forecast: two tools have the same name"):
        box.add(forecast)
