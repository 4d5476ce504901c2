"""What every DeviceNetwork must hold to."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.adapters.hccl.device_network import HccnDeviceNetwork
from glm3.adapters.memory.device_network import FakeDeviceNetwork
from glm3.domain.errors import BackendError
from glm3.domain.ports.device_network import DeviceNetwork

ADAPTERS = [HccnDeviceNetwork, FakeDeviceNetwork]
ADDRESSES = {0: "192.1.27.6", 3: "192.4.27.6", 12: "fe80::1"}


@pytest.fixture(params=["tool", "file", "memory"], scope="module")
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DeviceNetwork:
    if request.param == "memory":
        return FakeDeviceNetwork(ADDRESSES)
    folder = tmp_path_factory.mktemp("hccn")
    if request.param == "file":
        return HccnDeviceNetwork(str(folder / "no_tool"), write_configuration(folder, ADDRESSES))
    return HccnDeviceNetwork(str(write_tool(folder, ADDRESSES)), folder / "no_file")


def write_tool(folder: Path, addresses: dict[int, str]) -> Path:
    cases = "\n".join(f'  {n}) printf "ipaddr:{ip}\\nnetmask:x\\n" ;;' for n, ip in addresses.items())
    tool = folder / "hccn_tool"
    tool.write_text(
        f'#!/bin/sh\n[ "$1 $3 $4" = "-i -ip -g" ] || exit 2\ncase "$2" in\n{cases}\n  *) exit 1 ;;\nesac\n'
    )
    tool.chmod(0o755)
    return tool


def write_configuration(folder: Path, addresses: dict[int, str]) -> Path:
    path = folder / "hccn.conf"
    lines = [f"address_{n}={ip}\nnetmask_{n}=255.255.255.0" for n, ip in addresses.items()]
    path.write_text("\n".join(["gateway_0=192.1.27.1", *lines, ""]))
    return path


def test_just_the_devices_that_are_asked_for_are_told(network: DeviceNetwork):
    assert network.device_addresses([12, 0]).by_device == {12: "fe80::1", 0: "192.1.27.6"}


def test_a_device_without_an_address_is_named(network: DeviceNetwork):
    with pytest.raises(BackendError, match="device 1, 2"):
        network.device_addresses([0, 1, 2, 3])


def test_this_machine_has_an_address_or_none(network: DeviceNetwork):
    found = network.server_address()
    assert found is None or found.count(".") == 3


def test_what_the_tool_does_not_say_is_read_from_the_file_with_a_warning(tmp_path: Path):
    tool = write_tool(tmp_path, {0: "10.0.0.1"})
    path = write_configuration(tmp_path, {0: "9.9.9.9", 1: "10.0.0.2"})
    found = HccnDeviceNetwork(str(tool), path).device_addresses([0, 1])
    assert found.by_device == {0: "10.0.0.1", 1: "10.0.0.2"}
    assert "out of date" in found.notes[0]
    assert "device 1" in found.notes[0]


def test_a_tool_that_prints_nothing_is_no_answer(tmp_path: Path):
    tool = tmp_path / "hccn_tool"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    path = write_configuration(tmp_path, {0: "10.0.0.1"})
    assert HccnDeviceNetwork(str(tool), path).device_addresses([0]).by_device == {0: "10.0.0.1"}
