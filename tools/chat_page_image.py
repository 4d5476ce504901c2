"""Write the picture of the chat page in the documentation anew: ``python -m tools.chat_page_image``.

A real browser asks a real server; the model reads out a script, so that the picture changes only where the
page does. Chinese needs a font that has it (Debian: ``fonts-noto-cjk``).
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect
from tests.support.browser import chromium, watched_page
from tests.support.serving import replies_model, serving

from glm3.domain.tool_call import format_tool_call

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "chat-page.png"

_QUESTIONS = ("用 Python 写一个二分查找，并说明复杂度。", "上海现在天气怎么样？")
_REPLIES = (
    """二分查找每一步把**有序**区间缩小一半：

```python
def search(items, wanted):
    low, high = 0, len(items)
    while low < high:
        middle = (low + high) // 2
        if items[middle] < wanted:
            low = middle + 1
        else:
            high = middle
    return low
```

| | 时间 | 空间 |
|---|---|---|
| 最坏 | `O(log n)` | `O(1)` |""",
    format_tool_call("get_weather", {"city": "上海"}),
)


def main() -> None:
    """Ask the questions and write the picture."""
    size = {"width": 1120, "height": 1240}
    with (
        serving(replies_model(*_REPLIES)) as served,
        chromium() as browser,
        watched_page(browser, viewport=size, locale="zh-CN") as watched,
    ):
        page = watched.page
        page.goto(served.url)
        page.click("#open-settings")
        page.click("#tools-example")
        page.click("#close-settings")
        for number, question in enumerate(_QUESTIONS, 1):
            page.fill("#prompt", question)
            page.press("#prompt", "Enter")
            expect(page.locator(".usage")).to_have_count(number)
        page.locator(".call textarea").fill('{"sky": "晴", "temperature": 21}')
        IMAGE.parent.mkdir(exist_ok=True)
        page.screenshot(path=IMAGE)


if __name__ == "__main__":
    main()
