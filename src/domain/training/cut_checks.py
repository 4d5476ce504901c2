"""Whether ranks can train a network that is cut as a run asks for."""

from __future__ import annotations

from attrs import evolve

from glm3.domain.errors import ConfigError, Glm3Error, MultipleFaultsError, raise_faults
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.layout.tensor_parallel import TensorParallel
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.training.shares import require_plain

__all__ = ["require_trainable"]


def require_trainable(
    cut: NetworkCut, world_size: int, network: ModelConfig, *, adapted: bool = False, evaluated: bool = False
) -> None:
    """Check that ``world_size`` ranks can train a network cut so, with an adapter, evaluated meanwhile.

    Raises:
        ConfigError, MultipleFaultsError: with every rule that is broken, its value and its setting.
    """
    if cut.model_parallel == 1:
        require_plain(cut, world_size)
        return
    faults: list[Glm3Error] = []
    if cut.pipeline_stage > 1:
        faults.append(
            ConfigError(
                "every rank must have all layers here",
                field="parallel_config.pipeline_stage",
                expected=1,
                found=cut.pipeline_stage,
                hint="raise model_parallel to save memory",
            )
        )
    if adapted:
        faults.append(
            ConfigError(
                "ranks that share matrices train no adapter",
                field="parallel_config.model_parallel",
                expected=1,
                found=cut.model_parallel,
                hint="raise data_parallel instead: what is not trained has no optimizer states",
            )
        )
    if evaluated:
        faults.append(
            ConfigError(
                "no rank can answer alone while several share the matrices",
                field="do_eval",
                expected=False,
                found=True,
                hint="evaluate what the run leaves with glm3 evaluate",
            )
        )
    try:
        TensorParallel(network, cut.model_parallel, cut.vocab_emb_dp)
        cut_network(parameter_shapes(network), evolve(cut, pipeline_stage=1))
    except MultipleFaultsError as error:
        faults += error.faults
    except Glm3Error as error:
        faults.append(error)
    raise_faults("the ranks cannot share the network so", faults)
