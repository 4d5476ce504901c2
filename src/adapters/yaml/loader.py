"""YAML text into nodes with their lines: YAML 1.1 as PyYAML's safe loader reads it, and nothing beyond.

Aliases stay one node. Keys given twice, cycles, foreign tags and texts that unfold to absurd sizes are
faults: a few lines of nested aliases can stand for billions of values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from attrs import define, field

from glm3.domain.errors import ConfigError, MissingFileError, StorageError
from glm3.domain.run_config.tree import Faults, Node, Origin

__all__ = ["load_tree"]

MAX_BYTES = 1 << 18
MAX_VALUES = 20_000  # the largest of the shipped files has about 250, in 8 kB
MAX_DEPTH = 50

_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


def load_tree(path: Path, faults: Faults) -> Node:
    """Read one file whose top is a mapping; repeated and odd keys are noted in ``faults``.

    Raises:
        MissingFileError: there is no such file.
        StorageError: it may not be read.
        ConfigError: it is no YAML 1.1 text in UTF-8, or its size or nesting is absurd.
    """
    text = _read_text(path)
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is None:
                raise ConfigError("the file is empty", path=path, line=1, expected="keys and values")
            tree = _Builder(path, loader, faults).build(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" {error.context}" if error.context else ""
        raise ConfigError(
            f"not valid YAML: {error.problem or 'syntax error'}{context}",
            path=path,
            line=None if mark is None else mark.line + 1,
        ) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            "not a text file: a character that YAML forbids",
            path=path,
            line=text.count("\n", 0, error.position) + 1,
            found=f"#x{error.character:04x}" if isinstance(error.character, int) else repr(error.character),
        ) from error
    except RecursionError:
        raise ConfigError("nested too deeply", path=path, line=1, expected=f"{MAX_DEPTH} levels") from None
    if not isinstance(tree.value, dict):
        raise ConfigError(
            "not a configuration", path=path, line=1, expected="a mapping of keys to values at the top"
        )
    return tree


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise MissingFileError("no such configuration file", path=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror or error}", path=path) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            "too large for a configuration file", path=path, expected=f"at most {MAX_BYTES} bytes"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "not UTF-8 text",
            path=path,
            line=content.count(b"\n", 0, error.start) + 1,
            found=f"byte 0x{content[error.start]:02x}",
            hint="save the file as UTF-8",
        ) from error


@define
class _Builder:
    """Turn PyYAML's nodes into ours. ``sizes`` counts the values below a node with its aliases unfolded."""

    path: Path
    loader: yaml.SafeLoader
    faults: Faults
    done: dict[int, Node] = field(factory=dict)
    sizes: dict[int, int] = field(factory=dict)
    open: set[int] = field(factory=set)
    entries: dict[int, list[tuple[yaml.Node, yaml.Node]]] = field(factory=dict)

    def build(self, node: yaml.Node) -> Node:
        if (known := self.done.get(id(node))) is not None:
            return known
        if id(node) in self.open:
            raise self._error(node, "an alias inside the part that it stands for")
        if len(self.open) >= MAX_DEPTH:
            raise self._error(node, "nested too deeply", expected=f"at most {MAX_DEPTH} levels")
        self.open.add(id(node))
        built = Node(None, self._origin(node))
        size = 1
        if isinstance(node, yaml.MappingNode):
            built.value = {}
            for key, value in self._entries(node):
                self._put(built, key, value)
                size += self.sizes[id(value)]
        elif isinstance(node, yaml.SequenceNode):
            built.value = [self.build(item) for item in node.value]
            size += sum(self.sizes[id(item)] for item in node.value)
        else:
            built.value = self._scalar(node)
        if node.tag not in _PLAIN_TAGS and not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a tag that a configuration may not use", found=node.tag)
        if size > MAX_VALUES:
            raise self._error(
                node, "unfolds to too many values", expected=f"at most {MAX_VALUES}", found=size
            )
        self.open.discard(id(node))
        self.done[id(node)] = built
        self.sizes[id(node)] = size
        return built

    def _put(self, mapping: Node, key: yaml.Node, value: yaml.Node) -> None:
        child = self.build(value)
        name = self._scalar(key) if isinstance(key, yaml.ScalarNode) else None
        if not isinstance(name, str):
            self._note(key, "not a key", expected="text", found=repr(getattr(key, "value", "")))
        elif name in mapping.value:
            first = mapping.key_origins[name].line
            self._note(key, "key given twice", field=name, found=f"first in line {first}")
        else:
            mapping.put(name, child, self._origin(key))

    def _entries(self, node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
        """Return the mapping's own entries, then those of merged mappings (``<<``) that it does not have."""
        if (known := self.entries.get(id(node))) is not None:
            return known
        own = [(key, value) for key, value in node.value if key.tag != "tag:yaml.org,2002:merge"]
        names = {str(key.value) for key, _ in own}
        merged = []
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise self._error(source, "only mappings can be merged with <<")
                if id(source) in self.open:
                    raise self._error(source, "a mapping merged into itself")
                self.open.add(id(source))
                merged += [entry for entry in self._entries(source) if str(entry[0].value) not in names]
                self.open.discard(id(source))
                names |= {str(key.value) for key, _ in merged}
                if len(merged) > MAX_VALUES:
                    raise self._error(source, "unfolds to too many values", expected=f"at most {MAX_VALUES}")
        self.entries[id(node)] = own + merged
        return self.entries[id(node)]

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, TypeError, AttributeError) as error:
            raise self._error(node, "cannot be read", found=repr(node.value)[:80]) from error

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self.path, node.start_mark.line + 1)

    def _note(self, node: yaml.Node, message: str, **facts: Any) -> None:
        self.faults.add(message, origin=self._origin(node), **facts)

    def _error(self, node: yaml.Node, message: str, **facts: Any) -> ConfigError:
        return ConfigError(message, path=self.path, line=node.start_mark.line + 1, **facts)
