"""Strategy files that are damaged, contradictory or of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import glm3
from glm3.adapters.strategy import json_form, protobuf, strategy_pb2
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.adapters.strategy.stored import StoredLayout, StoredOperator, StoredStrategy
from glm3.domain.errors import CheckpointError, Glm3Error, InvalidInputError, MultipleFaultsError
from glm3.domain.layout.tensor_layout import TensorLayout

GOLDEN = Path(__file__).parents[1] / "golden" / "strategy"
COMPILED = {ending: (GOLDEN / f"compiled.{ending}").read_bytes() for ending in ("ckpt", "json")}
STORE = FileStrategyStore()
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

ENTRY = {"dev_matrix": [2], "tensor_map": [0], "opt_weight_shard_step": 0, "opt_weight_shard_size": 0}


def entry(name: str, **changes: Any) -> StoredLayout:
    return StoredLayout(**{"name": name, "device_matrix": (2,), "tensor_maps": ((0,),), **changes})


def write(path: Path, layouts: list[StoredLayout], stages: tuple[int, ...] = (0,)) -> Path:
    operators = [StoredOperator(f"op{stage}", stage, ((2,),)) for stage in stages]
    path.write_bytes(protobuf.encode(StoredStrategy(layouts, operators)))
    return path


def write_json(path: Path, layouts: object, operators: object = None) -> Path:
    path.write_text(json.dumps({"parallel_layout_item": layouts, "parallel_strategy_item": operators or {}}))
    return path


def faults_of(path: Path) -> list[Glm3Error]:
    with pytest.raises(InvalidInputError) as caught:
        STORE.read(path)
    return list(getattr(caught.value, "faults", (caught.value,)))


@HERE
@given(end=st.integers(0, len(COMPILED["ckpt"]) - 1))
def test_a_cut_protobuf_is_refused_or_lacks_its_last_parameters(end: int, tmp_path: Path) -> None:
    """A cut right behind a parameter cannot be told from a smaller strategy; nothing is made up."""
    path = tmp_path / "s.ckpt"
    path.write_bytes(COMPILED["ckpt"][:end])
    complete = STORE.read(GOLDEN / "compiled.ckpt").stages[0].layouts
    try:
        found = STORE.read(path).stages[0].layouts
    except CheckpointError as error:
        assert all(fault.path == path for fault in getattr(error, "faults", (error,)))  # noqa: PT017
    else:
        assert list(found.items()) == list(complete.items())[: len(found)]
        assert len(found) < len(complete)


@HERE
@given(end=st.integers(0, len(COMPILED["json"]) - 1))
def test_a_cut_json_is_refused(end: int, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(COMPILED["json"][:end])
    assert [fault.path for fault in faults_of(path)] == [path]


@HERE
@given(content=st.binary(max_size=64), ending=st.sampled_from(["ckpt", "json"]))
def test_garbage_is_refused(content: bytes, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.{ending}"
    path.write_bytes(content)
    assert all(fault.path == path for fault in faults_of(path))


@HERE
@given(at=st.integers(0, len(COMPILED["ckpt"]) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_read_as_a_layout(at: int, bit: int, tmp_path: Path) -> None:
    content = bytearray(COMPILED["ckpt"])
    content[at] ^= 1 << bit
    path = tmp_path / "s.ckpt"
    path.write_bytes(content)
    try:
        STORE.read(path)
    except InvalidInputError as error:
        assert all(fault.path == path for fault in getattr(error, "faults", (error,)))  # noqa: PT017


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.ckpt"
    path.write_bytes(COMPILED["ckpt"].replace(b"rows.bias", b"rows.\xffias"))
    assert any(r"\xffias" in str(fault) for fault in faults_of(path))


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@HERE
@given(key=st.sampled_from([*ENTRY, "tensor_shape", "field", "param_split_shape"]), value=values)
def test_an_entry_of_any_json_is_refused_or_read(key: str, value: object, tmp_path: Path) -> None:
    path = write_json(tmp_path / "s.json", {"w": {**ENTRY, key: value}})
    try:
        STORE.read(path)
    except InvalidInputError as error:
        for fault in getattr(error, "faults", (error,)):
            assert fault.path == path
            assert "w" in str(fault.field)


@pytest.mark.parametrize("tree", [[], {}, None, 3, {"parallel_layout_item": {"w": ENTRY}}])
def test_other_json_is_refused(tree: object, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(tree))
    assert faults_of(path)[0].field in ("parallel_layout_item", "parallel_strategy_item")


def test_a_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("[" * 100_000)
    assert "JSON" in str(faults_of(path)[0])


def test_json_under_another_name_is_recognised_as_no_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "s.ckpt"
    path.write_bytes(COMPILED["json"])
    assert ".json" in str(faults_of(path)[0].hint)


def test_every_parameter_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.ckpt", [entry("a"), entry("b"), entry("a"), entry("b"), entry("c")])
    assert [fault.field for fault in faults_of(path)] == ["a", "b"]


def test_a_parameter_twice_in_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    one = json.dumps(ENTRY)
    path.write_text(f'{{"parallel_layout_item": {{"a": {one}, "a": {one}}}, "parallel_strategy_item": {{}}}}')
    assert "more than once: a" in str(faults_of(path)[0])


def test_a_strategy_without_parameters_is_refused(tmp_path: Path) -> None:
    assert "names no parameter" in str(faults_of(write(tmp_path / "s.ckpt", []))[0])


def test_names_without_their_stage_in_a_merged_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.ckpt", [entry("0-a"), entry("b"), entry("1-c"), entry("d")], (0, 1))
    assert [fault.field for fault in faults_of(path)] == ["b", "d"]


def test_a_missing_stage_of_a_merged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.ckpt", [entry("0-a"), entry("3-c")], (0, 3))
    assert [fault.field for fault in faults_of(path)] == ["stage 1", "stage 2"]


def test_operators_of_several_stages_in_one_stages_file_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.ckpt", [entry("a")], (0, 1))
    assert faults_of(path)[0].found == [0, 1]


def test_every_layout_that_is_not_usable_is_named(tmp_path: Path) -> None:
    entries = [
        entry("fine"),
        entry("outside", tensor_maps=((3,),)),
        entry("several", tensor_maps=((1, 0), (-1,))),
        entry("uneven", split_shape=(3, 5)),
        entry("larger", device_matrix=(4,)),
    ]
    faults = faults_of(write(tmp_path / "s.ckpt", entries))
    fields = [str(fault.field).split(",")[0] for fault in faults]
    assert fields == ["outside", "several", "uneven", "larger"]
    assert {fault.path for fault in faults} == {tmp_path / "s.ckpt"}


def test_an_axis_cut_along_several_axes_is_refused_in_json_too(tmp_path: Path) -> None:
    path = write_json(tmp_path / "s.json", {"w": {**ENTRY, "dev_matrix": [2, 2], "tensor_map": [[1, 0], -1]}})
    assert "several axes" in str(faults_of(path)[0])


def test_both_forms_in_one_folder_are_refused(tmp_path: Path) -> None:
    for ending, content in COMPILED.items():
        (tmp_path / f"rank_0.{ending}").write_bytes(content)
    assert faults_of(tmp_path)[0].found == "rank_0.ckpt, rank_0.json"


def test_every_broken_file_of_a_folder_is_named(tmp_path: Path) -> None:
    for rank, content in enumerate([COMPILED["ckpt"], b"\xff", b""]):
        (tmp_path / f"rank_{rank}.ckpt").write_bytes(content)
    assert [fault.path for fault in faults_of(tmp_path)] == [
        tmp_path / "rank_1.ckpt",
        tmp_path / "rank_2.ckpt",
    ]


def test_a_file_that_is_too_large_to_be_one_is_not_read(tmp_path: Path) -> None:
    """A checkpoint in the place of its strategy."""
    path = tmp_path / "s.ckpt"
    with path.open("wb") as file:
        file.truncate(300 * 2**20)
    assert "too large" in str(faults_of(path)[0])


def test_a_scalar_and_a_job_of_pipelines_alone_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "s.ckpt", [entry("step", device_matrix=(), tensor_maps=((),))])
    assert STORE.read(path).stages[0].layouts == {"step": TensorLayout((), ())}


def test_shapes_and_operators_survive_their_file(tmp_path: Path) -> None:
    stage = STORE.read(GOLDEN / "compiled.json").stages[0]
    assert stage.operators["MatMul_columns.weight"] == ((2, 2), (1, 2))
    STORE.write(tmp_path / "s.json", stage)
    assert STORE.read(tmp_path / "s.json").stages[0] == stage


def test_the_shapes_that_json_states_are_checked() -> None:
    job = STORE.read(GOLDEN / "compiled.json")
    shapes = dict(job.stages[0].shapes)
    job.check(shapes)
    with pytest.raises(MultipleFaultsError) as caught:
        job.check({**shapes, "whole": (64, 32), "norm": (64,)})
    assert sorted(str(fault.field) for fault in caught.value.faults) == ["norm", "whole"]


def test_the_generated_module_is_that_of_the_description(tmp_path: Path) -> None:
    """``make proto`` was called after the last change."""
    root = Path(glm3.__path__[0]).parent
    name = "glm3/adapters/strategy/strategy.proto"
    out = tmp_path / "set"
    assert protoc.main(["", f"-I{root}", f"--descriptor_set_out={out}", name]) == 0
    (described,) = FileDescriptorSet.FromString(out.read_bytes()).file
    generated = FileDescriptorProto()
    strategy_pb2.DESCRIPTOR.CopyToProto(generated)
    for message in described.message_type:
        for one in message.field:
            one.ClearField("json_name")
    assert described == generated


def test_what_the_forms_state_is_the_same() -> None:
    stored = protobuf.decode(COMPILED["ckpt"])
    as_json = json_form.decode(json_form.encode(stored))
    assert as_json == stored
