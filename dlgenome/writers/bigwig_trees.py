"""The two indexes inside a bigWig: chromosome names (B+ tree) and places on the genome (R-tree).

Layout: Kent et al. 2010, "BigWig and BigBed: enabling browsing of large distributed datasets",
Bioinformatics 26(17), supplementary tables. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dlgenome.types import Contig

CHROMOSOME_TREE_MAGIC = 0x78CA8C91
PLACE_TREE_MAGIC = 0x2468ACE0
BLOCKS_PER_NODE = 256
NAMES_PER_NODE = 2**15 - 1
"""One node then holds every genome but the most fragmented, and only searches between nodes need order."""

BLOCK = np.dtype([("first", "<u4", 2), ("last", "<u4", 2), ("offset", "<u8"), ("size", "<u8")])
"""A compressed block of the file: (chromosome, base) where it starts and ends, and where its bytes are."""

_PLACE_NODE = np.dtype([("first", "<u4", 2), ("last", "<u4", 2), ("child", "<u8")])


def write_chromosome_tree(file: IO[bytes], contigs: Sequence[Contig]) -> None:
    """Write names and lengths in the order of the contigs, or by name where one node cannot hold all.

    Readers list them in the order written, or in that of the ids, which is always that of the contigs.
    """
    names = [contig.name.encode() for contig in contigs]
    key = f"S{max(map(len, names), default=1)}"
    leaves = np.array(
        [(name, row, contig.length) for row, (name, contig) in enumerate(zip(names, contigs, strict=True))],
        dtype=[("key", key), ("id", "<u4"), ("length", "<u4")],
    )
    if len(leaves) > NAMES_PER_NODE:
        leaves.sort(order="key")
    pieces = _pieces(leaves, NAMES_PER_NODE)
    nodes = np.zeros(len(pieces), [("key", key), ("child", "<u8")])
    nodes["key"][: len(leaves)] = leaves["key"][::NAMES_PER_NODE]
    key_size = leaves.dtype["key"].itemsize
    file.write(struct.pack("<4I2Q", CHROMOSOME_TREE_MAGIC, NAMES_PER_NODE, key_size, 8, len(leaves), 0))
    _write_tree(file, nodes, pieces, leaves.itemsize, NAMES_PER_NODE)


def write_place_tree(file: IO[bytes], blocks: IO[bytes], count: int, shift: int) -> None:
    """Write the index of ``count`` BLOCK items, read from the start of ``blocks``; they must be in order.

    ``shift`` is where the data that their offsets count from lies in ``file``.
    """
    end_of_data = file.tell()
    nodes = np.zeros(max(1, -(-count // BLOCKS_PER_NODE)), _PLACE_NODE)
    for node, leaf in zip(nodes, _leaves(blocks, shift), strict=True):
        if count:
            node["first"], node["last"] = leaf["first"][0], leaf["last"][-1]
    whole = nodes["first"][0].tobytes() + nodes["last"][-1].tobytes()
    file.write(struct.pack("<2IQ", PLACE_TREE_MAGIC, BLOCKS_PER_NODE, count))
    file.write(whole + struct.pack("<Q2I", end_of_data, 1, 0))
    _write_tree(file, nodes, _leaves(blocks, shift), BLOCK.itemsize, BLOCKS_PER_NODE)


def _leaves(blocks: IO[bytes], shift: int) -> Iterator[NDArray[Any]]:
    """The items of one leaf after the other; where there is no block, one leaf without items."""
    blocks.seek(0)
    piece = blocks.read(BLOCKS_PER_NODE * BLOCK.itemsize)
    while True:
        leaf = np.frombuffer(piece, BLOCK).copy()
        leaf["offset"] += np.uint64(shift)
        yield leaf
        piece = blocks.read(BLOCKS_PER_NODE * BLOCK.itemsize)
        if not piece:
            return


def _pieces(items: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """The items cut into nodes; a tree of nothing has one node without items."""
    return [items[first : first + size] for first in range(0, max(1, len(items)), size)]


def _write_tree(
    file: IO[bytes], nodes: NDArray[Any], leaves: Iterable[NDArray[Any]], leaf_item_size: int, per_node: int
) -> None:
    """Write the root, then level after level; ``nodes`` describes the nodes of the level of the leaves.

    Every node but the last of its level is full, so where the children lie follows from their number.
    """
    levels = [nodes]
    while len(levels[0]) > 1:
        levels.insert(0, _parents(levels[0], per_node))
    for depth, (above, items) in enumerate(pairwise(levels)):
        item_size = leaf_item_size if depth == len(levels) - 2 else items.itemsize
        children = file.tell() + 4 * len(above) + items.nbytes
        items["child"] = children + np.arange(len(items)) * (4 + per_node * item_size)
        for node in _pieces(items, per_node):
            file.write(struct.pack("<2BH", False, 0, len(node)) + node.tobytes())
    for leaf in leaves:
        file.write(struct.pack("<2BH", True, 0, len(leaf)) + leaf.tobytes())


def _parents(nodes: NDArray[Any], per_node: int) -> NDArray[Any]:
    """An item for each node that holds ``per_node`` of these, with the places from its first to its last."""
    parents = nodes[::per_node].copy()
    if "last" in (nodes.dtype.names or ()):
        lasts = np.minimum(np.arange(1, len(parents) + 1) * per_node, len(nodes)) - 1
        parents["last"] = nodes["last"][lasts]
    return parents
