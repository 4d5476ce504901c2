"""The comparison that ``glm3 doctor --ascend`` makes on a card, made here with the references themselves."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import pytest
from mindspore.graph.api import _pynative_executor

from glm3.adapters.mindspore.backend import MindSporeBackend
from glm3.adapters.mindspore.communicator import device_of_job
from glm3.adapters.mindspore.kernels.ascend import selection
from glm3.adapters.mindspore.kernels.ascend.operators import make_operators, present_operators
from glm3.adapters.mindspore.kernels.ascend.reference import OperatorSettings
from glm3.adapters.mindspore.kernels.ascend.self_test import Sizes, compare_operators
from glm3.adapters.mindspore.kernels.base import HeadLayout
from glm3.application.doctor import judge_operators
from glm3.domain.ascend_self_test import OperatorOutcome, judge_operator
from glm3.domain.errors import BackendError
from glm3.domain.finding import Status
from glm3.domain.host import AscendFacts
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.tensors import DType
from support.models import tiny_config

LAYOUT = HeadLayout(4, 2, 16)
SIZES = Sizes(layout=LAYOUT, batch=2, seq=24, ffn=20, hidden=32, block_size=16)
OPERATORS = (
    *("FlashAttentionScore", "PagedAttention", "ReshapeAndCache", "RmsNorm"),
    *("RotaryPositionEmbedding", "Swiglu"),
)


@pytest.fixture(scope="module")
def references():
    return make_operators(OperatorSettings(LAYOUT, 1e-5), ())


def outcomes(fused, references):
    return list(compare_operators(fused, references, SIZES, "float32"))


def test_references_agree_with_themselves(references):
    found = outcomes(references, references)
    assert {outcome.operator for outcome in found} == set(OPERATORS)
    assert {outcome.operator for outcome in found if "gradient" in outcome.case} == {
        *("FlashAttentionScore", "RmsNorm", "RotaryPositionEmbedding", "Swiglu")
    }
    for outcome in found:
        assert outcome.passed, outcome
        assert outcome.error == 0
        assert judge_operator(outcome).status is Status.OK


@ms.jit_class
class Halved:
    """An operator whose numbers are half of what they should be."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, *inputs):
        return self.inner(*inputs) * 0.5


@pytest.mark.parametrize("operator", [name for name in OPERATORS if name != "ReshapeAndCache"])
def test_a_wrong_operator_is_found(references, operator):
    found = outcomes({operator: Halved(references[operator])}, references)
    assert found
    for outcome in found:
        assert outcome.operator == operator
        assert not outcome.passed
        finding = judge_operator(outcome)
        assert finding.status is Status.FAIL
        assert "do not train" in finding.advice


def test_values_written_elsewhere_are_found(references):
    write = references["ReshapeAndCache"]
    swapped = {
        "ReshapeAndCache": lambda key, value, keys, values, slots: write(value, key, keys, values, slots)
    }
    assert [outcome.passed for outcome in outcomes(swapped, references)] == [False]


def test_what_an_operator_says_is_a_finding(references):
    def fail(*_):
        raise RuntimeError("The kernel Swiglu unregistered.\nmore")

    for outcome in outcomes({"Swiglu": fail}, references):
        assert not outcome.passed
        assert outcome.failure == "The kernel Swiglu unregistered."
        assert "--collect-logs" in judge_operator(outcome).advice


def test_a_failure_leaves_no_recording_of_gradients(references):
    """While MindSpore records, operators that come later, a model's for example, give wrong numbers."""

    def fail(*_):
        raise RuntimeError("The kernel Swiglu unregistered.")

    assert not any(outcome.passed for outcome in outcomes({"Swiglu": fail}, references))
    assert not _pynative_executor.grad_flag()


def test_not_a_number_never_passes():
    assert not OperatorOutcome(operator="Swiglu", case="halves", dtype="float16", allowed=1.0).passed


class FakeHost:
    """A machine with or without the traces of a card."""

    def __init__(self, ascend):
        self.ascend = ascend

    def facts(self):
        return SimpleNamespace(ascend=self.ascend)


class FakeTest:
    def run(self):
        shared = {"case": "halves", "dtype": "float16", "allowed": 1e-3}
        yield OperatorOutcome(operator="Swiglu", error=1e-4, **shared)
        yield OperatorOutcome(operator="RmsNorm", error=1e-2, **shared)


def test_without_a_card_nothing_is_said_to_work():
    with pytest.raises(BackendError, match="no Ascend card is present: nothing was tested"):
        judge_operators(FakeHost(AscendFacts()), FakeTest())


def test_the_report_of_a_card_fails_with_its_worst_operator():
    report = judge_operators(FakeHost(AscendFacts(device_files=("/dev/davinci0",))), FakeTest())
    assert [finding.status for finding in report.findings] == [Status.OK, Status.FAIL]
    assert report.status is Status.FAIL


def test_a_rank_table_alone_means_a_card():
    assert device_of_job({"RANK_TABLE_FILE": "/t.json"}) == "Ascend"
    assert device_of_job({"RANK_TABLE_FILE": "/t.json", "MS_ROLE": "MS_WORKER"}) == "CPU"
    assert device_of_job({"MS_ROLE": "MS_WORKER"}) == "CPU"


def test_kernels_for_a_card_are_refused_without_one():
    with pytest.raises(BackendError, match=r"another device|cannot use Ascend"):
        MindSporeBackend().load(tiny_config(), None, LoadOptions(kernels="ascend"))
    with pytest.raises(BackendError, match="keys and values in half precision"):
        MindSporeBackend().load(tiny_config(), None, LoadOptions(kernels="ascend", kv_cache="int8"))


def test_all_operators_are_fused_where_mindspore_and_cann_match():
    config = tiny_config(kv_channels=16)
    heard = []
    kernels = selection.ascend_kernels(config, DType.FLOAT16, cann="8.3.RC1", warn=heard.append)
    assert set(kernels.fused) == present_operators()
    assert heard == []
    with pytest.raises(BackendError, match="MindSpore and CANN do not match"):
        selection.ascend_kernels(config, DType.FLOAT16, cann="7.0.0", warn=heard.append)


def test_an_operator_that_is_not_in_the_package_is_plain(monkeypatch):
    monkeypatch.setattr(selection, "present_operators", lambda: frozenset({"Swiglu"}))
    heard = []
    kernels = selection.ascend_kernels(tiny_config(kv_channels=16), DType.FLOAT16, warn=heard.append)
    assert kernels.fused == ("Swiglu",)
    assert len(heard) == 1
    assert "FlashAttentionScore is not in MindSpore" in heard[0]
