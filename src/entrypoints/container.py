"""The composition root: which adapter stands behind which port. The only module that knows the container.

Adapters are imported when they are first asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dependency_injector import containers, providers

from glm3.adapters.hub.catalog import DEFAULT_BASE_URL
from glm3.application.load_model import ModelLoader
from glm3.application.model_source import ModelSources
from glm3.domain.errors import UsageError
from glm3.domain.ports.backend import ModelBackend
from glm3.domain.ports.calibrator import Calibrator
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.device_network import DeviceNetwork
from glm3.domain.ports.downloader import Downloader
from glm3.domain.ports.graph_exporter import GraphExporter
from glm3.domain.ports.host import Host
from glm3.domain.ports.host_logs import HostLogs
from glm3.domain.ports.kernel_cache import KernelCache
from glm3.domain.ports.model_catalog import ModelCatalog
from glm3.domain.ports.model_exporter import ModelExporter
from glm3.domain.ports.operator_test import OperatorTest
from glm3.domain.ports.process_runner import ProcessRunner
from glm3.domain.ports.quantizer import Quantizer
from glm3.domain.ports.run_config_reader import RunConfigReader
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.entrypoints.paths import cache_folder, resources_folder

if TYPE_CHECKING:
    from glm3.adapters.prometheus.serving_metrics import ServingMetrics
    from glm3.entrypoints.training import TrainingServices

__all__ = ["BACKEND_GROUP", "Container", "build_container"]

BACKEND_GROUP = "glm3.backends"
"""Entry-point group through which other packages add model backends, by name."""


def lazy(target: str) -> Callable[..., Any]:
    """Return a factory of ``package.module:Name`` that imports it when it is called."""
    module, name = target.split(":")

    def build(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    return build


def find_backend(name: str, cache: Path) -> ModelBackend:
    """Return a model backend: one of ours, or one that an installed package registered.

    ``cache`` is where ours keeps compiled kernels.

    Raises:
        UsageError: there is none of this name.
    """
    ours: dict[str, Callable[[], ModelBackend]] = {
        "mindspore": partial(
            lazy("glm3.adapters.mindspore.backend:MindSporeBackend"),
            cache / "kernels",
            lambda: lazy("glm3.adapters.host.ascend:read_ascend")().toolkit_version,
        ),
        "numpy": lazy("glm3.adapters.memory.numpy_backend:NumpyBackend"),
    }
    if name in ours:
        return ours[name]()
    others = {point.name: point for point in entry_points(group=BACKEND_GROUP)}
    if name not in others:
        raise UsageError("no such backend", expected=", ".join([*ours, *others]), found=name)
    loaded: ModelBackend = others[name].load()()
    return loaded


def find_quantizer(backend: str, cache: Path) -> Quantizer:
    """Return what rounds weights: numpy beside the backend of that name, else the native kernels."""
    if backend == "numpy":
        found: Quantizer = lazy("glm3.adapters.memory.numpy_quantizer:NumpyQuantizer")()
    else:
        found = lazy("glm3.adapters.mindspore.quantizer:NativeQuantizer")(cache / "kernels")
    return found


def find_communicator() -> Communicator:
    """Return this rank's end of the job that the environment describes, or that of a process on its own.

    ``MS_ROLE`` is set by msrun and by our launcher, ``RANK_SIZE`` by every launcher. A rank waits
    ``GLM3_RANK_TIMEOUT`` seconds for the others.

    Raises:
        BackendError, CommunicationError: the ranks do not come together.
    """
    environment = os.environ
    if environment.get("MS_ROLE") or int(environment.get("RANK_SIZE") or 1) > 1:
        join = lazy("glm3.adapters.mindspore.communicator:join_job")
        seconds = environment.get("GLM3_RANK_TIMEOUT")
        joined: Communicator = join() if seconds is None else join(float(seconds))
        return joined
    alone: Communicator = lazy("glm3.adapters.memory.single_process_communicator:SingleProcessCommunicator")()
    return alone


def open_stores() -> Sequence[CheckpointStore]:
    """Return a store for every format, in the order in which they are asked about a path."""
    return [
        lazy("glm3.adapters.safetensors.store:SafetensorsStore")(),
        lazy("glm3.adapters.torchfile.store:TorchCheckpointStore")(),
        lazy("glm3.adapters.msckpt.store:MindSporeCheckpointStore")(),
    ]


class Container(containers.DeclarativeContainer):
    """Everything an entrypoint needs; any provider may be overridden, in tests and by integrators."""

    config = providers.Configuration()

    checkpoint_stores: providers.Provider[Sequence[CheckpointStore]] = providers.Factory(open_stores)
    run_configs: providers.Provider[RunConfigReader] = providers.Factory(
        lazy("glm3.adapters.yaml.run_config_reader:YamlRunConfigReader")
    )
    host: providers.Provider[Host] = providers.Factory(
        lazy("glm3.adapters.host.local:LocalHost"), config.cache_folder, config.download_folder
    )
    host_logs: providers.Provider[HostLogs] = providers.Factory(
        lazy("glm3.adapters.host.ascend_logs:AscendLogs")
    )
    operator_test: providers.Provider[OperatorTest] = providers.Factory(
        lazy("glm3.adapters.mindspore.kernels.ascend.card_test:AscendOperatorTest")
    )
    device_network: providers.Provider[DeviceNetwork] = providers.Factory(
        lazy("glm3.adapters.hccl.device_network:HccnDeviceNetwork")
    )
    process_runner: providers.Provider[ProcessRunner] = providers.Factory(
        lazy("glm3.adapters.process.runner:LocalProcessRunner")
    )
    catalog: providers.Provider[ModelCatalog] = providers.Factory(
        lazy("glm3.adapters.hub.catalog:PublishedModels"),
        config.resources_folder,
        config.download_folder,
        config.model_base_url,
    )
    downloader: providers.Provider[Downloader] = providers.Factory(
        lazy("glm3.adapters.hub.http_downloader:HttpDownloader"), offline=config.offline
    )
    tokenizers: providers.Provider[Callable[[Path], Tokenizer]] = providers.Object(
        lazy("glm3.adapters.sentencepiece.tokenizer:SentencePieceTokenizer")
    )
    gguf_exporter: providers.Provider[ModelExporter] = providers.Factory(
        lazy("glm3.adapters.gguf.exporter:GgufExporter")
    )
    graph_exporter: providers.Provider[GraphExporter] = providers.Factory(
        lazy("glm3.adapters.mindspore.export.exporter:MindirExporter")
    )
    backend: providers.Provider[ModelBackend] = providers.Factory(
        find_backend, config.backend, config.cache_folder
    )

    quantizer: providers.Provider[Quantizer] = providers.Factory(
        find_quantizer, config.backend, config.cache_folder
    )
    calibrator: providers.Provider[Calibrator] = providers.Factory(
        lazy("glm3.adapters.memory.numpy_calibrator:NumpyCalibrator")
    )
    kernels: providers.Provider[KernelCache] = providers.Factory(
        lambda cache: lazy("glm3.adapters.mindspore.kernels.store:CompiledKernels")(cache / "kernels"),
        config.cache_folder,
    )

    sources: providers.Provider[ModelSources] = providers.Factory(
        ModelSources, catalog, downloader, run_configs
    )
    models: providers.Provider[ModelLoader] = providers.Factory(
        ModelLoader, sources, checkpoint_stores, backend, tokenizers
    )
    communicator: providers.Provider[Communicator] = providers.Singleton(find_communicator)
    strategies: providers.Provider[StrategyStore] = providers.Factory(
        lazy("glm3.adapters.strategy.store:FileStrategyStore")
    )
    serving_metrics: providers.Provider[ServingMetrics] = providers.Factory(
        lazy("glm3.adapters.prometheus.serving_metrics:ServingMetrics")
    )
    training: providers.Provider[TrainingServices] = providers.Factory(
        lazy("glm3.entrypoints.training:TrainingServices"),
        models=models,
        stores=checkpoint_stores,
        tokenizers=tokenizers,
        backend=backend,
        host=host,
        communicator=communicator,
        strategies=strategies,
        resources=config.resources_folder,
        cache=config.cache_folder,
    )


def build_container(*, offline: bool | None = None, backend: str | None = None) -> Container:
    """Return a container set up from the environment; arguments win over it.

    ``GLM3_OFFLINE`` forbids the network, ``GLM3_BACKEND`` names the backend, ``GLM3_MODEL_BASE_URL`` and
    ``CHECKPOINT_DOWNLOAD_FOLDER`` are where published models come from and go to.
    """
    environment = os.environ
    container = Container()
    container.config.from_dict(
        {
            "offline": _is_set(environment.get("GLM3_OFFLINE")) if offline is None else offline,
            "backend": backend or environment.get("GLM3_BACKEND") or "mindspore",
            "model_base_url": environment.get("GLM3_MODEL_BASE_URL") or DEFAULT_BASE_URL,
            "download_folder": Path(environment.get("CHECKPOINT_DOWNLOAD_FOLDER") or "checkpoint_download"),
            "resources_folder": resources_folder(),
            "cache_folder": cache_folder(),
        }
    )
    return container


def _is_set(value: str | None) -> bool:
    return value is not None and value.lower() not in ("", "0", "false", "no")
