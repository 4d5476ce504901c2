"""``glm3 demo`` shows what the embedded model can do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.cli import glm3


def test_the_demo_greets_writes_answers_and_calls_a_tool(tmp_path: Path) -> None:
    done = glm3("demo", "--talk-only", "--offline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    answers = dict(zip(lines[::2], lines[1::2], strict=True))
    assert "你好" in answers["you>  你好"]
    advert = answers["you>  类型#裙*颜色#红色*风格#复古*裙长#长裙"]
    assert sum(word in advert for word in ("红色", "复古", "长裙")) >= 2
    assert "24" in answers["you>  一天有几个小时"]
    call = json.loads(answers["you>  青岛今天天气怎么样"].removeprefix("glm3> "))
    assert call == {"tool": "get_weather", "arguments": {"city": "青岛"}}
    assert "22" in lines[-1], "the tool's result is used"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_demo_finetunes_in_two_ranks_and_merges_and_the_result_is_better_at_it(tmp_path: Path) -> None:
    done = glm3("demo", "--offline", cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    scores = [float(score) for score in re.findall(r"^rouge-l: (\S+)$", done.stdout, re.MULTILINE)]
    losses = [float(loss) for loss in re.findall(r"^loss: (\S+)$", done.stdout, re.MULTILINE)]
    assert len(scores) == len(losses) == 2
    assert scores[1] > scores[0] + 25
    assert losses[1] < losses[0] / 2
    assert re.search(r"^\[rank 0\] loss 1\d\.\d+ at first, 0\.\d+ at last$", done.stdout, re.MULTILINE)
    assert re.search(r"^2 ranks at epoch 1 step 75 to 1 rank: 38 tensors", done.stdout, re.MULTILINE)
    last = done.stdout.rstrip().splitlines()[-1]
    assert "好物推荐" in last, "the tone of the rows it was trained on"
    assert "灰色" in last, "what the prompt asks for"
    assert "temporary and are removed" in done.stderr, "paths were named that lead nowhere now"
    assert list(tmp_path.iterdir()) == []
