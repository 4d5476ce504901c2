"""What a trainer needs to know where ranks share the network: groups, sums beside the graph, the norm."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from mindspore import Parameter

from glm3.adapters.mindspore.communicator import MindSporeCommunicator
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.training.exchange import Group, KeyValueExchange
from glm3.adapters.mindspore.training.optimizer import NormShares
from glm3.adapters.mindspore.training.shared_network import share_network
from glm3.domain.errors import BackendError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.ports.communicator import Communicator
from glm3.domain.training.model_shares import ModelShares

__all__ = ["SharedJob", "group_of"]

_KEY_VALUE = ".query_key_value."


def group_of(communicator: Communicator, *, world: bool = True) -> Group | None:
    """Return the group whose collectives can be compiled into a step, None where there is none."""
    if communicator.world_size == 1 or not isinstance(communicator, MindSporeCommunicator):
        return None
    return Group(communicator.group, communicator.rank, communicator.world_size, world)


@frozen(eq=False)
class SharedJob:
    """A rank's part of a network and of the work: ``model`` and ``world`` are its groups of ranks.

    ``data`` are the ranks with the same part, None where no other has it.
    """

    network: ChatGLMNetwork
    shares: ModelShares
    world: Group
    model: Group
    data: Group | None

    @classmethod
    def begin(cls, network: ChatGLMNetwork, cut: NetworkCut, communicator: Communicator) -> SharedJob:
        """Divide the ranks into groups and cut the network; every rank must call it.

        Raises:
            BackendError: the communicator cannot be compiled into a graph.
            ConfigError: the network cannot be cut so, or the ranks are not as many.
        """
        shares = ModelShares.among(network.config, cut, network.dtype.itemsize, communicator)
        world, model = group_of(communicator), group_of(shares.model, world=False)
        if world is None or model is None:
            raise BackendError(
                "a network is shared among ranks of MindSpore's runtime only",
                found=type(communicator).__name__,
            )
        own = share_network(network, shares, model)
        return cls(own, shares, world, model, group_of(shares.data, world=False))

    def norm(self) -> NormShares:
        """Return what of the gradients' norm is this rank's."""
        shares, repeated = self.shares, self.shares.ways.ranks_per_group
        portions = {}
        for name in shares.shapes:
            rows = shares.updated_rows(name) or slice(0, shares.held_shape(name)[0])
            weight, size = 1 / shares.copies(name), rows.stop - rows.start
            found = [(0, size, weight)]
            if repeated > 1 and _KEY_VALUE in name:
                queries = shares.held(name)[0][0]
                middle = min(max(queries.stop - queries.start - rows.start, 0), size)
                found = [(0, middle, weight), (middle, size, weight / repeated)]
            portions[name] = tuple(portion for portion in found if portion[0] < portion[1])
        return NormShares(self.world, portions)

    def key_value_exchange(self, parameters: Sequence[Parameter]) -> KeyValueExchange | None:
        """Return what sums the gradients of groups that several ranks hold, None where each has its own."""
        ways, config = self.shares.ways, self.shares.config
        if ways.ranks_per_group == 1:
            return None
        indices = [i for i, parameter in enumerate(parameters) if _KEY_VALUE in parameter.name]
        rows = ways.query_key_value_rows(self.model.rank)
        return KeyValueExchange(indices, rows, config.attention_size, config.qkv_size, self.model)
