"""How the parameters of a training run are cut among its ranks."""

from __future__ import annotations

from attrs import evolve

from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import from_mindspore_name, parameter_shapes
from glm3.domain.tensors import DType
from glm3.domain.training.adapters import AdapterConfig, trained_shapes

__all__ = ["job_cut"]


def job_cut(
    network: ModelConfig, adapter: AdapterConfig | None, cut: NetworkCut, *, frozen_too: bool = False
) -> JobStrategy:
    """Return the cut of what a run trains: the network, or an adapter.

    ``frozen_too`` adds the network that an adapter is trained beside. Adapters are float32, whatever the
    network is.

    Raises:
        ConfigError: there are more stages than layers.
        InvalidInputError: with every parameter that ``model_parallel`` does not divide.
    """
    shapes = parameter_shapes(network)
    sizes = dict.fromkeys(shapes, network.param_init_type.itemsize)
    if adapter is None:
        return cut_network(shapes, cut, itemsize=sizes)
    trained = trained_shapes(network, adapter)
    sizes |= dict.fromkeys(trained, DType.FLOAT32.itemsize)
    job = cut_network({**shapes, **trained}, cut, itemsize=sizes)
    return job if frozen_too else JobStrategy(tuple(_only(stage, set(trained)) for stage in job.stages))


def _only(stage: Strategy, names: set[str]) -> Strategy:
    layouts = {name: layout for name, layout in stage.layouts.items() if from_mindspore_name(name) in names}
    return evolve(stage, layouts=layouts, shapes={name: stage.shapes[name] for name in layouts})
