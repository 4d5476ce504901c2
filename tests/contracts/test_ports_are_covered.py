"""No adapter escapes the contract of its port.

A contract module lists the classes it runs over as ``ADAPTERS``. The checkpoint stores' contract looks for
its own strays.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

import glm3.adapters
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.dataset import RowFile
from glm3.domain.ports.device_network import DeviceNetwork
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.process_runner import ProcessRunner
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.ports.training import Trainer

CONTRACTS = {
    Communicator: "test_communicator_contract",
    DeviceNetwork: "test_device_network_contract",
    LanguageModel: "test_model_contract",
    ProcessRunner: "test_process_runner_contract",
    Quantizer: "test_quantizer_contract",
    RowFile: "test_row_reader_contract",
    StrategyStore: "test_strategy_store_contract",
    Tokenizer: "test_tokenizer_contract",
    Trainer: "test_trainer_contract",
}
METHODS = {port: {n for n, v in vars(port).items() if n[0] != "_" and callable(v)} for port in CONTRACTS}


def classes_with(methods: set[str], folder: Path) -> set[str]:
    """Return the classes under ``folder`` that have all the methods, own or from bases of that folder.

    The sources are read and not imported: some adapters need libraries that are not always installed.
    """
    classes = {
        node.name: node
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }

    def methods_of(name: str) -> set[str]:
        if name not in classes:
            return set()
        own = {item.name for item in classes[name].body if isinstance(item, ast.FunctionDef)}
        bases = [base.id for base in classes[name].bases if isinstance(base, ast.Name)]
        return own.union(*map(methods_of, bases))

    return {name for name in classes if methods <= methods_of(name)}


def listed(contract: str, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the names of the classes that a contract module runs over."""
    spec = importlib.util.spec_from_file_location(
        f"listed_{contract}", Path(__file__).with_name(f"{contract}.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return {adapter.__name__ for adapter in module.ADAPTERS}


@pytest.mark.parametrize("port", CONTRACTS, ids=lambda port: port.__name__)
def test_every_adapter_of_a_port_is_in_its_contract(port, monkeypatch):
    assert classes_with(METHODS[port], Path(glm3.adapters.__path__[0])) == listed(
        CONTRACTS[port], monkeypatch
    )


def test_a_class_is_found_by_its_methods_wherever_it_has_them_from(tmp_path: Path):
    """The search itself works: own methods count, inherited ones too, a part of them does not."""
    (tmp_path / "a.py").write_text("class Half:\n    def encode(self): ...\n")
    (tmp_path / "b.py").write_text("class Whole(Half):\n    def decode(self): ...\n")
    assert classes_with({"encode", "decode"}, tmp_path) == {"Whole"}
