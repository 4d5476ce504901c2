"""The text files the model card's conversion scripts leave for a person to check.

One line per tensor: name, shape and dtype as PyTorch prints them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from glm3.domain.parameters import IGNORED_SUFFIXES, from_mindspore_name, to_mindspore_name
from glm3.domain.tensors import TensorSpec

__all__ = ["check_file_lines", "render_check_files"]


def check_file_lines(specs: Iterable[TensorSpec]) -> Iterator[str]:
    """Yield ``name torch.Size([65024, 4096]) torch.float16`` for every tensor."""
    for spec in specs:
        yield f"{spec.name} torch.Size([{', '.join(map(str, spec.shape))}]) torch.{spec.dtype}"


def render_check_files(specs: Iterable[TensorSpec]) -> Mapping[str, str]:
    """Return the content of both files by name.

    ``pt_ckpt.txt`` lists the parameters under their Hugging Face names, without what is no parameter;
    ``check_pt_ckpt.txt`` lists every tensor under its MindSpore name.
    """
    hugging_face = [TensorSpec(from_mindspore_name(s.name), s.dtype, s.shape) for s in specs]
    parameters = [spec for spec in hugging_face if not spec.name.endswith(IGNORED_SUFFIXES)]
    mindspore = [TensorSpec(to_mindspore_name(s.name), s.dtype, s.shape) for s in hugging_face]
    return {
        "pt_ckpt.txt": "".join(f"{line}\n" for line in check_file_lines(parameters)),
        "check_pt_ckpt.txt": "".join(f"{line}\n" for line in check_file_lines(mindspore)),
    }
