"""Read run configurations written in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glm3.adapters.yaml.loader import load_tree
from glm3.domain.errors import ConfigError, MissingFileError
from glm3.domain.run_config import RunConfig, build_run_config
from glm3.domain.run_config.overrides import apply_overrides, parse_overrides
from glm3.domain.run_config.tree import Faults, Node, plain

__all__ = ["YamlRunConfigReader"]


class YamlRunConfigReader:
    """The reader for files in the layout of ``configs/glm3``.

    ``base_config`` names one or several files, relative to the file that says so, which it builds on:
    mappings are merged key by key, everything else is replaced, later files and the child win.
    """

    def read(self, path: Path, overrides: Sequence[str] = ()) -> RunConfig:
        """See :class:`glm3.domain.ports.run_config_reader.RunConfigReader`."""
        parsed = parse_overrides(overrides)
        faults = Faults()
        tree = _load_with_bases(Path(path), faults, ())
        apply_overrides(tree, parsed, faults)
        return build_run_config(tree, str(path), faults)


def _load_with_bases(path: Path, faults: Faults, children: tuple[Path, ...]) -> Node:
    tree = load_tree(path, faults)
    named = tree.value.pop("base_config", None)
    if named is None:
        return tree
    chain = (*children, path.resolve())
    merged = Node({}, tree.origin)
    for name in _base_names(named):
        base = path.parent / name
        if base.resolve() in chain:
            raise _broken("base_config builds on itself", named, found=name)
        try:
            loaded = _load_with_bases(base, faults, chain)
        except MissingFileError as error:
            if error.path != base:
                raise
            raise _broken("base_config does not exist", named, found=str(base)) from None
        _merge(merged, loaded)
    _merge(merged, tree)
    return merged


def _base_names(named: Node) -> list[str]:
    value = plain(named)
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise _broken("base_config is no file name", named, expected="a path or a list of paths", found=value)
    return names


def _merge(into: Node, child: Node) -> None:
    """Let ``child`` win over ``into``, in place, so that aliases of the base see what the child says."""
    for name, node in child.value.items():
        there = into.value.get(name)
        if there is None or not (isinstance(there.value, dict) and isinstance(node.value, dict)):
            into.put(name, node, child.key_origins[name])
        elif there is not node:
            _merge(there, node)


def _broken(message: str, named: Node, *, expected: object = None, found: object = None) -> ConfigError:
    origin = named.origin
    return ConfigError(
        message, path=origin.path, line=origin.line, field="base_config", expected=expected, found=found
    )
