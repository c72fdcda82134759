"""Words that training programs put before the names of the weights, taken off again.

DataParallel says ``module.``, torch.compile ``_orig_mod.``, Lightning ``model.`` or whatever its author
called the attribute, and Lightning also stores what belongs to losses and metrics beside the network.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dlgenome.model.architectures.definition import Tensors

_NETWORKS = ("model.", "net.", "network.", "module.", "backbone.")


def readings(tensors: Tensors) -> Iterator[Tensors]:
    """The state_dict as it is, then without its common first words, then its network alone."""
    yield tensors
    first, dot, _ = next(iter(tensors), "").partition(".")
    prefix = first + dot
    if dot and all(key.startswith(prefix) for key in tensors):
        yield from readings({key.removeprefix(prefix): tensor for key, tensor in tensors.items()})
        return
    for word in _NETWORKS:
        network = {key.removeprefix(word): tensor for key, tensor in tensors.items() if key.startswith(word)}
        if network:
            yield from readings(network)


def best_reading(tensors: Tensors, names: Collection[str]) -> Tensors:
    """The reading with the most of these names; the file's own where none has more."""
    expected = set(names)
    return max(readings(tensors), key=lambda reading: len(expected & set(reading)))
