"""The service description: documented, named by the rules, and what the generated modules were made from."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from glm3.entrypoints.grpc.glm3.v1 import chat_pb2
from support.cli import REPOSITORY

PROTO = "glm3/entrypoints/grpc/glm3/v1/chat.proto"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file as the compiler reads it now, comments included."""
    target = tmp_path_factory.mktemp("proto") / "set"
    command = [
        "protoc",
        f"-I{REPOSITORY / 'typings'}",
        "--include_source_info",
        f"--descriptor_set_out={target}",
    ]
    assert protoc.main([*command, str(REPOSITORY / "typings" / PROTO)]) == 0
    files = FileDescriptorSet()
    files.ParseFromString(target.read_bytes())
    return files.file[0]


def parts(message: Any, name: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for index, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, 2, index)
    for index, oneof in enumerate(message.oneof_decl):
        if not oneof.name.startswith("_"):  # those stand for optional
            yield f"{name}.{oneof.name}", (*path, 8, index)
    for index, inner in enumerate(message.nested_type):
        yield from parts(inner, f"{name}.{inner.name}", (*path, 3, index))
    for index, inner in enumerate(message.enum_type):
        yield from values(inner, f"{name}.{inner.name}", (*path, 4, index))


def values(enum: Any, name: str, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield name, path
    for index, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, 2, index)


def everything(file: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index, message in enumerate(file.message_type):
        yield from parts(message, message.name, (4, index))
    for index, enum in enumerate(file.enum_type):
        yield from values(enum, enum.name, (5, index))
    for index, service in enumerate(file.service):
        yield service.name, (6, index)
        for number, method in enumerate(service.method):
            yield f"{service.name}.{method.name}", (6, index, 2, number)


def test_the_generated_modules_are_those_of_the_description(described):
    now, generated = FileDescriptorProto(), FileDescriptorProto()
    now.CopyFrom(described)
    now.ClearField("source_code_info")
    chat_pb2.DESCRIPTOR.CopyToProto(generated)
    for file in (now, generated):
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")
    assert now == generated, "run make proto"


def test_the_generated_stubs_are_those_of_the_description(tmp_path):
    """The modules of calls and the types as well, which no descriptor shows."""
    folder = REPOSITORY / "typings"
    binaries = Path(sys.executable).parent
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--mypy_out={tmp_path}"]
    command += [f"--grpc_python_out={tmp_path}", f"--mypy_grpc_out={tmp_path}", PROTO]
    plugins = [f"--plugin={binaries / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    subprocess.run([*command, *plugins], cwd=folder, check=True, capture_output=True, timeout=120)
    for name in ("chat_pb2.pyi", "chat_pb2_grpc.py", "chat_pb2_grpc.pyi"):
        path = Path(PROTO).with_name(name)
        assert (tmp_path / path).read_text() == (folder / path).read_text(), "run make proto"


def test_every_part_has_a_comment(described):
    commented = {
        tuple(place.path) for place in described.source_code_info.location if place.leading_comments.strip()
    }
    bare = [name for name, path in everything(described) if path not in commented]
    assert not bare


def test_names_follow_the_style_guide(described):
    for message in described.message_type:
        assert re.fullmatch(r"([A-Z][a-z0-9]+)+", message.name)
        for field in message.field:
            assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", field.name)
    enums = [*described.enum_type, *(e for m in described.message_type for e in m.enum_type)]
    for enum in enums:
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper() + "_"
        assert enum.value[0].name == f"{prefix}UNSPECIFIED"
        assert all(value.name.startswith(prefix) for value in enum.value)
    for method in described.service[0].method:
        assert method.input_type == f".glm3.v1.{method.name}Request"
        assert method.output_type == f".glm3.v1.{method.name}Response"
