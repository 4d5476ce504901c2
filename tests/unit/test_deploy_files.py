"""What deploy/ says about the program is true: options, routes, ports, users, seconds."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

import pytest
import typer
import yaml

from glm3.adapters.prometheus.serving_metrics import ServingMetrics
from glm3.application.serving.access import AccessPolicy
from glm3.application.serving.lifecycle import Lifecycle
from glm3.entrypoints.cli.app import app
from glm3.entrypoints.http.app import build_app
from glm3.entrypoints.http.settings import HttpSettings
from glm3.entrypoints.serving.address import Address, check_exposure
from support.cli import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
FLUSH_SECONDS = 15  # what the server takes at most behind --drain-seconds: the last bytes, the last step

OBJECTS = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))}
POD = OBJECTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """Return what the command line means; it fails for an option or value that there is not."""
    command, *options = arguments
    known = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    parameters: dict[str, Any] = known.make_context(command, options).params
    return parameters


def environment_variables() -> set[str]:
    """Return the variables that stand for options, and those that the program reads itself."""
    options = typer.main.get_command(app).params
    return {str(option.envvar) for option in options} | {"GLM3_CACHE", "GLM3_TOKEN"}


def instructions() -> list[tuple[str, str]]:
    """Return the container file's instructions with their arguments, each on one line."""
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def of(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_the_pod_starts_a_server_that_exists_and_is_guarded() -> None:
    parameters = parsed(CONTAINER["args"])
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports.keys() == {"http", "grpc"}
    for name, port in ports.items():
        address = Address.parse(parameters[name], f"--{name}")
        assert address.port == port
        assert not address.is_loopback, "probes and clients come from outside the pod"
        check_exposure(address, f"--{name}", guarded=parameters["token_file"] is not None)
    assert parameters["drain_seconds"] <= parameters["time_limit"]
    assert {each["name"] for each in CONTAINER["env"]} <= environment_variables()


@pytest.mark.parametrize(("probe", "path"), [("livenessProbe", "/health"), ("readinessProbe", "/ready")])
def test_probes_ask_routes_that_exist_and_need_no_token(probe: str, path: str) -> None:
    routes = build_app(Lifecycle(), AccessPolicy(), ServingMetrics(), HttpSettings()).routes
    asked = CONTAINER[probe]["httpGet"]
    assert asked["path"] == path
    assert path in [getattr(route, "path", None) for route in routes]
    assert asked["port"] in [port["name"] for port in CONTAINER["ports"]]


def test_a_pod_has_time_to_drain() -> None:
    pause = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    readiness = CONTAINER["readinessProbe"]
    assert pause >= readiness["periodSeconds"] * readiness["failureThreshold"]
    drain = parsed(CONTAINER["args"])["drain_seconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] >= pause + drain + FLUSH_SECONDS


def test_what_the_arguments_name_is_mounted() -> None:
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in CONTAINER["volumeMounts"]}
    parameters = parsed(CONTAINER["args"])
    tokens, model = PurePosixPath(str(parameters["token_file"])), PurePosixPath(parameters["model"])
    assert mounts[str(tokens.parent)]["secret"]["secretName"] == "glm3-tokens"
    assert "persistentVolumeClaim" in mounts[str(model.parent)]
    assert "emptyDir" in mounts["/tmp"]
    for folder in ("/cache", "/work"):  # where the image writes
        assert "emptyDir" in mounts[folder]
        assert any(folder in run for run in of("RUN"))
    assert re.search(rf"--from-file={tokens.name}\b", (DEPLOY / "kubernetes.yaml").read_text("utf-8"))


def test_the_pod_has_no_rights() -> None:
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["securityContext"]["runAsNonRoot"] is True
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert of("USER")[-1] == "{0[runAsUser]}:{0[runAsGroup]}".format(POD["spec"]["securityContext"])


def test_everything_means_the_same_pods_and_port() -> None:
    labels = POD["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert OBJECTS[kind]["spec"]["selector"]["matchLabels"] == labels
    policy = OBJECTS["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    names = {port["name"] for port in CONTAINER["ports"]}
    assert {port["targetPort"] for port in OBJECTS["Service"]["spec"]["ports"]} == names
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == names


def test_the_image_starts_the_same_server() -> None:
    assert json.loads(of("ENTRYPOINT")[-1]) == ["glm3"]
    parameters = parsed(json.loads(of("CMD")[-1]))
    http, grpc = (Address.parse(parameters[name], f"--{name}") for name in ("http", "grpc"))
    assert not http.is_loopback
    assert not grpc.is_loopback
    assert of("EXPOSE") == [f"{http.port} {grpc.port}"]
    assert f"http://127.0.0.1:{http.port}/health" in of("HEALTHCHECK")[0]
    given = {pair.partition("=")[0] for pair in of("ENV")[0].split()}
    assert {name for name in given if name.startswith("GLM3_")} <= environment_variables()


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    sources = [name for copy in of("COPY") if "--from" not in copy for name in copy.split()[:-1]]
    assert sources
    for name in sources:
        assert (REPOSITORY / name).exists()
        assert f"!{name}" in ignore
    assert "*" in ignore
