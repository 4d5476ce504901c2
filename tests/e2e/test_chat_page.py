"""The chat page in a real browser, over a real server with scripted models."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import httpx
import pytest
from attrs import define, field
from playwright.sync_api import Browser, Page, expect

from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.limits import ServiceLimits
from glm3.domain.ports.model import LanguageModel
from glm3.domain.tool_call import format_tool_call
from support.browser import Watched, chromium, watched_page
from support.serving import TOKENIZER, Served, replies_model, serving

expect.set_options(timeout=30_000)

HOLD = "^"


@define
class HeldModel:
    """Reads out a reply, and stops where it says ``HOLD`` until ``go`` is set."""

    model: LanguageModel
    go: threading.Event = field(factory=threading.Event)

    @property
    def config(self):
        return self.model.config

    def new_cache(self, rows, capacity, pool_tokens=None):
        return self.model.new_cache(rows, capacity, pool_tokens)

    def extend(self, cache, rows, tokens):
        if any(list(row) == TOKENIZER.encode(HOLD) for row in tokens):
            self.go.wait(60)
        return self.model.extend(cache, rows, tokens)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@define
class Visit:
    """The page of a running server."""

    served: Served
    watched: Watched

    @property
    def page(self) -> Page:
        return self.watched.page

    def ask(self, text: str) -> None:
        """Type a question, and wait until it is being answered."""
        asked = len(self.watched.asked)
        self.page.fill("#prompt", text)
        self.page.press("#prompt", "Enter")
        wait_until(self.page, lambda: len(self.watched.asked) > asked)

    def ask_and_wait(self, text: str) -> None:
        """Type a question, and wait until it is answered."""
        self.ask(text)
        expect(self.page.locator("#send")).to_be_visible()

    def texts(self) -> list[str]:
        return self.page.locator(".message .body").all_inner_texts()


def wait_until(page: Page, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(10)


@contextmanager
def visiting(browser: Browser, model: LanguageModel, **given: Any) -> Iterator[Visit]:
    context = {key: given.pop(key) for key in ("viewport", "color_scheme", "locale") if key in given}
    with serving(model, **given) as served, watched_page(browser, **context) as watched:
        watched.page.goto(served.url)
        expect(watched.page.locator("#readiness")).not_to_be_empty()
        yield Visit(served, watched)


def test_an_answer_appears_while_it_is_made(browser):
    held = HeldModel(replies_model(f"A **big** {HOLD} world"))
    with visiting(browser, held) as visit:
        page = visit.page
        expect(page.locator("#readiness")).to_have_text("ready")
        expect(page.locator("#model")).to_have_value("scripted")
        visit.ask("Say something")
        expect(page.locator(".assistant .body strong")).to_have_text("big")
        assert "world" not in page.inner_text("#transcript")
        expect(page.locator("#stop")).to_be_visible()
        expect(page.locator("#transcript")).to_have_attribute("aria-busy", "true")
        held.go.set()
        expect(page.locator(".usage")).to_have_text(re.compile(r"^\d+ tokens · .*tokens/s · .*prompt \d+"))
        assert visit.texts() == ["Say something", f"A big {HOLD} world"]
        assert "A big ^ world" in " ".join(page.locator("#spoken p").all_inner_texts())  # for screen readers
        assert visit.watched.asked == [
            {
                "model": "scripted",
                "messages": [{"role": "user", "content": "Say something"}],
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ]


def test_escape_stops_the_answer_and_the_model_and_one_can_go_on(browser):
    held = HeldModel(replies_model(f"begun {HOLD}" + " and so on" * 300, "next"))
    with visiting(browser, held) as visit:
        visit.ask("Talk")
        expect(visit.page.locator(".assistant .body")).to_contain_text("begun")
        visit.page.keyboard.press("Escape")
        expect(visit.page.locator(".assistant .extras")).to_contain_text("Stopped.")
        held.go.set()
        cancelled = 'glm3_requests_total{outcome="cancelled"} 1.0'
        wait_until(visit.page, lambda: cancelled in visit.served.metrics.render().decode())
        wait_until(visit.page, lambda: visit.served.engine.stats().running == 0)
        visit.ask_and_wait("Again")
        assert [message["content"] for message in visit.watched.asked[-1]["messages"]] == [
            "Talk", f"begun {HOLD}", "Again",
        ]  # fmt: skip


def test_reloading_keeps_conversations_and_what_was_said_of_an_answer(browser):
    held = HeldModel(replies_model("first", f"half {HOLD} whole"))
    with visiting(browser, held) as visit:
        visit.ask_and_wait("One")
        visit.ask("Two")
        expect(visit.page.locator(".assistant .body").nth(1)).to_contain_text("half")
        visit.page.reload()
        held.go.set()
        expect(visit.page.locator(".assistant .body").nth(1)).to_contain_text("half")
        assert visit.texts() == ["One", "first", "Two", f"half {HOLD}"]
        expect(visit.page.locator(".assistant .extras").nth(1)).to_contain_text("The answer broke off.")
        expect(visit.page.locator("#conversations .choose")).to_have_text(["One"])


HOSTILE = """<script>window.pwned = 1</script> <img src=x onerror="window.pwned = 2">
[click](javascript:window.pwned=3) [data](data:text/html,<script>pwned=4</script>) [up](//evil.example)
[a](JaVaScRiPt:pwned=5) [b](http://user:pass@evil.example) <javascript:pwned=6> ![i](https://evil.example/i.png)
[https://bank.example](https://evil.example/login) [x](https://e.example/"onmouseover="pwned=7")

<style>body{display:none}</style><iframe srcdoc="<script>parent.pwned=8</script>"></iframe>

```<img src=x onerror=pwned=9>
</code></pre><script>pwned = 10</script>
access = "\u202eresu\u2066"
```

| <b onclick=pwned=11>h</b> | [t](vbscript:pwned) |
|--|--|
| <svg onload=pwned=12> | \u202etxt.exe |
"""


def test_hostile_answers_are_text_and_nothing_of_them_runs_or_is_loaded(browser):
    call = format_tool_call("get_weather", {"city": "<img src=x onerror=pwned=13>"})
    with visiting(browser, replies_model(HOSTILE, call)) as visit:
        visit.page.click("#open-settings")
        visit.page.click("#tools-example")
        visit.page.fill("#system", "<img src=x onerror=pwned=16>")
        visit.page.click("#close-settings")
        visit.ask_and_wait("<img src=x onerror=pwned=14>")
        visit.ask_and_wait("<script>pwned=15</script>")
        page = visit.page
        expect(page.locator(".call pre")).to_contain_text("<img src=x onerror=pwned=13>")
        state = page.evaluate(
            """() => ({
                pwned: window.pwned,
                names: [...new Set([...document.querySelectorAll(".message *")].map((n) => n.localName))],
                events: [...document.querySelectorAll(".message *")].flatMap((n) => n.getAttributeNames())
                    .filter((name) => name.startsWith("on") || name === "style" || name === "src"),
                links: [...document.querySelectorAll(".message a")].map((a) => [a.protocol, a.host, a.rel]),
                text: document.querySelector("#transcript").textContent,
            })"""
        )
        assert state["pwned"] is None
        assert not {"script", "img", "iframe", "style", "svg", "b"} & set(state["names"])
        assert state["events"] == []
        assert {protocol for protocol, _, _ in state["links"]} == {"https:"}
        assert all("noopener" in rel for _, _, rel in state["links"])
        for text in (
            "<script>window.pwned = 1</script>",
            "[click](javascript:window.pwned=3)",
            "[up](//evil.example)",
            "[b](http://user:pass@evil.example)",
            "https://bank.example (evil.example)",  # a link says where it leads
            "</code></pre><script>pwned = 10</script>",
            '"\u202eresu\u2066"',
        ):
            assert text in state["text"]
        assert page.locator(".control").count() == 3  # what reorders text is marked
        assert all(address.startswith(visit.served.url) for address in visit.watched.addresses)


PIECES = [
    *"*_`~#>|[]()!<>\\-+:./\"'= \n\t\r",
    *("**", "```", "~~~", "\n\n", "\n- ", "\n1. ", "\n> ", "| a | b |\n|--|--|\n", "]("),
    *("http://", "https://e.example/", "javascript:", "word", "你好", "\u202e", "\ufffd", "<b>", "&lt;"),
]
BLOCKS = {
    "p",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "ul",
    "ol",
    "li",
    "blockquote",
    "figure",
    "figcaption",
    "pre",
    "button",
}
TABLES = {"div", "table", "thead", "tbody", "tr", "th", "td"}
INSIDE = {"a", "strong", "em", "s", "br", "code", "span"}


def test_no_text_makes_markdown_build_anything_but_what_is_allowed(plain):
    random = Random(20261124)
    texts = ["".join(random.choices(PIECES, k=random.randint(1, 60))) for _ in range(1500)]
    found = plain.page.evaluate(
        """async (texts) => {
            const { showMarkdown } = await import("./page/markdown.js");
            const words = { copy: "Copy", copied: "Copied" };
            const names = new Set(), protocols = new Set(), differing = [];
            const drawn = (text) => {
                const parent = document.createElement("div");
                showMarkdown(parent, text, words);
                return parent;
            };
            for (const text of texts) {
                const whole = drawn(text);
                for (const node of whole.querySelectorAll("*")) names.add(node.localName);
                for (const link of whole.querySelectorAll("a")) {
                    protocols.add(link.protocol);
                    if (link.querySelector("a")) names.add("a in a");
                }
                const grown = document.createElement("div");
                for (let end = 1; end < text.length; end += 7) showMarkdown(grown, text.slice(0, end), words);
                showMarkdown(grown, text, words);
                if (grown.innerHTML !== whole.innerHTML) differing.push(text);
            }
            return { names: [...names], protocols: [...protocols], differing };
        }""",
        texts,
    )
    assert set(found["names"]) <= BLOCKS | TABLES | INSIDE
    assert {"table", "ol", "strong", "a", "figure"} <= set(found["names"])  # the texts reach these
    assert set(found["protocols"]) <= {"http:", "https:"}
    assert found["differing"] == []


NONSENSE = [
    *("*a ", "**a ", "*a* ", "_", "`", "`a``b", "[", "[a](", "[x]", "![", "(", "https://", "<http://", "."),
    *("> ", "> a\n", "- ", "1. a\n", "|", "| ", "|a|\n", "# ", "```  "),
]


@pytest.mark.timeout(60, func_only=True)  # linear work takes a second; quadratic work, many minutes
@pytest.mark.parametrize("piece", NONSENSE)
def test_markdown_takes_no_long_time_over_long_nonsense(plain, piece):
    plain.page.evaluate(
        """async (piece) => {
            const { showMarkdown } = await import("./page/markdown.js");
            const text = piece.repeat(300000 / piece.length) + "x" + " ".repeat(300000) + "y`";
            showMarkdown(document.createElement("div"), text, { copy: "", copied: "" });
        }""",
        piece,
    )


@pytest.fixture(scope="module")
def plain(browser) -> Iterator[Visit]:
    """A page to call the scripts of."""
    with visiting(browser, replies_model("x")) as visit:
        yield visit


def test_markdown_is_shown_as_it_is_meant(plain):
    html = plain.page.evaluate(
        """async (text) => {
            const { showMarkdown } = await import("./page/markdown.js");
            const parent = document.createElement("div");
            showMarkdown(parent, text, { copy: "Copy", copied: "Copied" });
            for (const node of parent.querySelectorAll("*")) {
                for (const name of node.getAttributeNames()) if (name !== "href") node.removeAttribute(name);
            }
            return parent.innerHTML;
        }""",
        "## Title ##\n**粗体**，*em* ~~no~~ 2 * 3 * 4 snake_case_name `a*b*`\nline \\*two\\*\n\n"
        "1. one\n   - inner\n2. two\n\n> quoted\n\n| a | b |\n|:-:|--|\n| 1 \\| 2 |\n\n"
        "[text](https://e.example/a_(b)) https://x.example/y.\n***\n~~~py\n*not em*\n~~~",
    )
    assert html == (
        "<h4>Title</h4><p><strong>粗体</strong>，<em>em</em> <s>no</s> 2 * 3 * 4 snake_case_name "
        "<code>a*b*</code><br>line *two*</p>"
        "<ol><li><p>one</p><ul><li><p>inner</p></li></ul></li><li><p>two</p></li></ol>"
        "<blockquote><p>quoted</p></blockquote><div><table><thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><td>1 | 2</td><td></td></tr></tbody></table></div>"
        '<p><a href="https://e.example/a_(b)">text</a><span> (e.example)</span> '
        '<a href="https://x.example/y">https://x.example/y</a>.</p><hr>'
        "<figure><figcaption><span>py</span><button>Copy</button></figcaption>"
        "<pre><code>*not em*</code></pre></figure>"
    )


def test_the_page_is_confined_by_its_headers(plain):
    for path in ("/", "/page/main.js", "/page/style.css", "/page/icon.svg"):
        response = httpx.get(plain.served.url + path)
        policy = response.headers["Content-Security-Policy"]
        assert response.status_code == 200
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        again = httpx.get(plain.served.url + path, headers={"If-None-Match": response.headers["ETag"]})
        assert again.status_code == 304
    assert httpx.get(plain.served.url + "/page/..%2fapp.py").status_code == 404
    markup = httpx.get(plain.served.url + "/").text
    assert re.findall(r"<script(?![^>]* src=)|\son\w+=|\sstyle=", markup) == []
    refused = plain.page.evaluate(
        """() => { try { document.createElement("p").innerHTML = "<b>x</b>"; return ""; }
                   catch (error) { return error.name; } }"""
    )
    assert refused == "TypeError"
    plain.watched.tolerated.append("TrustedHTML")


def test_a_message_is_edited_and_an_answer_asked_for_again(browser):
    with visiting(browser, replies_model("first", "second")) as visit:
        page = visit.page
        visit.ask_and_wait("One")
        visit.ask_and_wait("Two")
        page.locator(".assistant").nth(1).get_by_role("button", name="Retry").click()
        wait_until(page, lambda: len(visit.watched.asked) == 3)
        expect(page.locator("#send")).to_be_visible()
        assert visit.watched.asked[2] == visit.watched.asked[1]
        assert visit.texts() == ["One", "first", "Two", "second"]

        page.locator(".user").nth(0).get_by_role("button", name="Edit").click()
        expect(page.get_by_role("textbox", name="Edit")).to_have_value("One")
        page.keyboard.press("Escape")
        assert visit.texts() == ["One", "first", "Two", "second"]
        page.locator(".assistant").nth(1).get_by_role("button", name="Continue in a copy").click()
        page.locator(".user").nth(0).get_by_role("button", name="Edit").click()
        page.get_by_role("textbox", name="Edit").fill("Changed")
        page.keyboard.press("Enter")
        wait_until(page, lambda: len(visit.watched.asked) == 4)
        expect(page.locator("#send")).to_be_visible()
        assert visit.watched.asked[3]["messages"] == [{"role": "user", "content": "Changed"}]
        assert visit.texts() == ["Changed", "first"]
        page.locator("#conversations .choose", has_text="One").click()  # what the copy was made of
        assert visit.texts() == ["One", "first", "Two", "second"]


def test_a_call_is_shown_and_its_result_given_or_not(browser):
    call = format_tool_call("get_weather", {"city": "Berlin"})
    with visiting(browser, replies_model(call, "It is sunny.", call, "Never mind.")) as visit:
        page = visit.page
        page.click("#open-settings")
        page.fill("#system", "Be brief.")
        page.fill("#tools", "{")
        expect(page.locator("#tools-fault")).to_contain_text("The tools are not right")
        page.click("#tools-example")
        expect(page.locator("#tools-fault")).to_be_hidden()
        page.click("#close-settings")
        visit.ask_and_wait("Weather?")
        expect(page.locator(".call h3")).to_have_text("The model calls get_weather")
        assert json.loads(page.inner_text(".call pre")) == {"city": "Berlin"}
        page.get_by_role("textbox", name="Result of get_weather").fill('{"sky": "clear"}')
        page.keyboard.press("Enter")
        expect(page.locator(".assistant .body").nth(1)).to_have_text("It is sunny.")
        sent = visit.watched.asked[1]
        made = sent["messages"][2]["tool_calls"][0]
        assert sent["tools"][0]["function"]["name"] == "get_weather"
        assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "tool"]
        assert sent["messages"][3] == {
            "role": "tool", "tool_call_id": made["id"], "content": '{"sky": "clear"}',
        }  # fmt: skip
        expect(page.locator("#send")).to_be_visible()
        visit.ask_and_wait("And now?")
        page.get_by_role("button", name="Skip").click()
        expect(page.get_by_role("textbox", name="Result of get_weather")).to_have_count(0)
        visit.ask_and_wait("Leave it")
        assert [message["role"] for message in visit.watched.asked[3]["messages"]][-2:] == ["user", "user"]


def test_everything_is_reached_by_keyboard(browser):
    with visiting(browser, replies_model("first")) as visit:
        page = visit.page
        assert page.evaluate("document.activeElement.id") == "prompt"
        page.keyboard.type("two")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("lines")
        page.evaluate(
            """document.activeElement.dispatchEvent(new KeyboardEvent(
                "keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
        )
        assert visit.watched.asked == []  # that Enter chose a character of an input method
        page.keyboard.press("Enter")
        expect(page.locator(".assistant .body")).to_have_text("first")
        assert visit.watched.asked[0]["messages"][0]["content"] == "two\nlines"
        expect(page.locator("#send")).to_be_visible()
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                """() => { const node = document.activeElement; const style = getComputedStyle(node);
                    return [node.id || node.textContent, node === document.body || style.outlineStyle]; }"""
            )
            assert focused[1] in (True, "solid"), focused
            seen.add(focused[0])
        assert {"model", "theme", "language", "open-settings", "new", "export", "import", "prompt"} <= seen
        assert {"send", "transcript", "Skip to the message", "Rename", "Export", "Delete"} <= seen
        assert {"Copy", "Edit", "Retry", "Continue in a copy"} <= seen
        page.focus("#open-settings")
        page.keyboard.press("Enter")
        expect(page.locator("#settings")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#settings")).to_be_hidden()
        assert page.evaluate("document.activeElement.id") == "open-settings"


def test_a_narrow_screen_needs_no_scrolling_sideways(browser):
    wide = "long" * 60
    reply = f"{wide}\n\n| {' | '.join(['cell'] * 12)} |\n|{'--|' * 12}\n\n```\n{wide}\n```\n\nhttps://e.example/{wide}"
    with visiting(browser, replies_model(reply), viewport={"width": 320, "height": 568}) as visit:
        page = visit.page

        def check() -> None:
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
            assert page.evaluate("document.getElementById('transcript').scrollWidth") <= 320
            for control in page.locator("button:visible, textarea:visible, input:visible").all():
                box = control.bounding_box()
                assert (
                    box is None or page.locator("figure, div.table").count() or box["x"] + box["width"] <= 320
                )

        check()
        visit.ask_and_wait(wide)
        check()
        for frame in ("pre", "div.table"):  # these are scrolled themselves
            assert page.locator(frame).evaluate(
                "(node) => node.scrollWidth > node.clientWidth && getComputedStyle(node).overflowX === 'auto'"
            )
        expect(page.locator("#new")).to_be_hidden()
        page.click("#toggle-sidebar")
        expect(page.locator("#new")).to_be_visible()
        check()
        page.keyboard.press("Escape")
        expect(page.locator("#new")).to_be_hidden()
        page.click("#open-settings")
        check()
        assert page.evaluate("document.getElementById('settings').scrollWidth") <= 320


def brightness(page: Page) -> int:
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", color)[:3]))


def test_it_is_dark_or_light_and_speaks_chinese_or_english(browser):
    with visiting(browser, replies_model("x"), color_scheme="dark", locale="zh-CN") as visit:
        page = visit.page
        assert brightness(page) < 200
        expect(page.locator("#send")).to_have_text("发送")
        page.click("#theme")
        assert brightness(page) > 600
        page.click("#language")
        expect(page.locator("#send")).to_have_text("Send")
        page.reload()
        expect(page.locator("#send")).to_have_text("Send")
        assert brightness(page) > 600
        page.click("#theme")
        page.emulate_media(color_scheme="light")
        assert brightness(page) < 200


def test_conversations_are_renamed_exported_deleted_and_imported(browser, tmp_path):
    with visiting(browser, replies_model("An *answer*")) as visit:
        page = visit.page
        visit.ask_and_wait("A question")
        page.get_by_role("button", name="Rename").click()
        page.keyboard.type("My <i>name</i>")
        page.keyboard.press("Enter")
        expect(page.locator("#conversations .choose")).to_have_text(["My <i>name</i>"])
        with page.expect_download() as download:
            page.click("#export")
        saved = tmp_path / "saved.json"
        download.value.save_as(saved)
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        expect(page.locator("#conversations .choose")).to_have_count(0)
        assert visit.texts() == []

        page.set_input_files("#import-file", saved)
        expect(page.locator("#conversations .choose")).to_have_text(["My <i>name</i>"])
        assert visit.texts() == ["A question", "An answer"]
        with page.expect_download() as again:
            page.click("#export")
        again.value.save_as(tmp_path / "again.json")
        assert json.loads((tmp_path / "again.json").read_text()) == json.loads(saved.read_text())


def entry(**changes: Any) -> dict[str, Any]:
    return {"title": "", "system": "", "tools": "", "updated": 1, "messages": [], **changes}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "glm3-conversations"),
        ({"format": "other", "version": 1, "conversations": []}, "glm3-conversations"),
        ([entry(), entry(title=5)], "conversations[1].title"),
        ([entry(messages=[{"role": "root", "content": ""}])], "conversations[0].messages[0].role"),
        ([entry(messages=[{"role": "user", "content": {"a": 1}}])], "conversations[0].messages[0].content"),
        ([entry(messages=[{"role": "constructor", "content": ""}, None])], "messages[1].role"),
        (
            [entry(messages=[{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}])],
            "conversations[0].messages[0].tool_calls",
        ),
        ([None], "conversations[0]: not an object"),
    ],
)
def test_a_file_that_is_not_right_is_refused_with_its_faults(plain, content, reason):
    if isinstance(content, list):
        content = {"format": "glm3-conversations", "version": 1, "conversations": content}
    text = content if isinstance(content, str) else json.dumps(content)
    file = {"name": "bad.json", "mimeType": "application/json", "buffer": text.encode()}
    plain.page.evaluate("document.getElementById('notice').replaceChildren()")
    plain.page.set_input_files("#import-file", file)
    expect(plain.page.locator("#notice")).to_contain_text("Nothing was imported")
    expect(plain.page.locator("#notice")).to_contain_text(reason)
    assert plain.page.locator("#conversations .choose").count() == 0


def test_a_missing_token_is_said_in_words_and_can_be_entered(browser):
    with visiting(browser, replies_model("welcome"), access=AccessPolicy({"me": "s3cret"})) as visit:
        page = visit.page
        visit.watched.tolerated.append("status of 401")
        expect(page.locator("#readiness")).to_have_text("needs a token")
        visit.ask_and_wait("Hello")
        expect(page.locator(".failure")).to_contain_text("The server needs a token it knows.")
        page.get_by_role("button", name="Enter a token").click()
        page.keyboard.type("s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("#settings")).to_be_hidden()
        expect(page.locator("#readiness")).to_have_text("ready")
        page.locator(".failure").get_by_role("button", name="Retry").click()
        expect(page.locator(".assistant .body")).to_have_text("welcome")
        expect(page.locator(".failure")).to_have_count(0)
        assert "s3cret" not in page.evaluate("JSON.stringify(localStorage)")
        assert "s3cret" not in json.dumps(visit.watched.asked)


def test_sampling_is_sent_and_what_the_server_says_to_it_is_shown(browser):
    with visiting(browser, replies_model("fine"), limits=ServiceLimits(output_tokens=10)) as visit:
        page = visit.page
        visit.watched.tolerated.append("status of 400")
        page.click("#open-settings")
        given = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "seed": 7, "repetition_penalty": 1.1}
        for name, value in given.items():
            page.fill(f"[name={name}]", str(value))
        page.keyboard.press("Escape")
        visit.ask_and_wait("Hello")
        assert {name: visit.watched.asked[0][name] for name in given} == given
        expect(page.locator(".failure")).to_contain_text("The server does not accept the request.")
        expect(page.locator(".failure .note")).to_contain_text("max_tokens")
        page.click("#open-settings")
        page.fill("[name=max_tokens]", "0")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("[name=max_tokens]")).to_be_focused()  # and nothing was sent
        page.fill("[name=max_tokens]", "9")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".assistant .body")).to_have_text("fine")
        assert [body["max_tokens"] for body in visit.watched.asked] == [50, 9]


PING = b': ping\r\n\r\ndata: {"choices":[{"index":0,"delta":{"content":"a"}}]}\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "text", "failure"),
    [
        (b'data: {"choices":[{"index":0,"delta":{"content":"par"}}]}\n\n', "par", "The answer broke off."),
        (
            PING + b'data:{"error":{"message":"no","code":"time_limit"}}\r\n\r\n',
            "a",
            "The answer took too long.",
        ),
        (b'event: x\rdata: {"choices":\rdata: []}\r\rdata: [DONE]\n\n', "", None),
        (b"data: nonsense\n\n", None, "The answer broke off."),
    ],
    ids=["cut off", "error", "carriage returns", "no JSON"],
)
def test_streams_are_read_as_the_standard_says_and_their_faults_shown(browser, body, text, failure):
    with visiting(browser, replies_model("x")) as visit:
        page = visit.page
        page.route(
            "**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream")
        )
        visit.ask_and_wait("Hello")
        if text is not None:
            expect(page.locator(".assistant .body")).to_have_text(text)
        if failure is None:
            assert page.locator(".failure").count() == 0
        else:
            expect(page.locator(".failure")).to_contain_text(failure)


def test_a_server_that_is_gone_or_loading_is_named(browser):
    with visiting(browser, replies_model("x")) as visit:
        page = visit.page
        visit.watched.tolerated += ["ERR_FAILED", "status of 503"]
        page.route("**/v1/chat/completions", lambda route: route.abort())
        visit.ask_and_wait("Hello")
        expect(page.locator(".failure")).to_contain_text("The server cannot be reached.")
        visit.served.lifecycle.drain()
        page.reload()
        expect(page.locator("#readiness")).to_have_text("shutting down")
