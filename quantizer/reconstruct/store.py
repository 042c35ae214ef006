"""What was decided so far, on disk: a run that was cut off goes on where it stopped, and gives the same bits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from isa.errors import QuantizationError
from quantizer.observers import ActivationObserver, Observer

VERSION = 2
"""Of what results depend on here; a new one makes older files not be found."""
Decided = Mapping[str, torch.Tensor]
"""Codes, scale and zero point of every weight of a unit, by attribute and what they are."""


class Store:
    """The files of one run, in a folder of their own inside of ``folder``; of None, nothing is kept.

    Raises QuantizationError for a folder that cannot be made.
    """

    def __init__(self, folder: str | Path | None, key: str) -> None:
        self.folder = None if folder is None else Path(folder) / key
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QuantizationError(
                f"resume = {str(folder)!r}: {error.strerror}; give a folder that can be made, or None"
            ) from None

    def load(self, index: int) -> Decided | None:
        """What was decided for a unit, or None."""
        if self.folder is None or not (path := self._path(self.folder, index)).exists():
            return None
        return torch.load(path, map_location="cpu", weights_only=True)

    def save(self, index: int, decided: Decided) -> None:
        """Keep it, whole or not at all."""
        if self.folder is None:
            return
        path = self._path(self.folder, index)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        torch.save({name: value.cpu() for name, value in decided.items()}, partial)
        partial.replace(path)

    @staticmethod
    def _path(folder: Path, index: int) -> Path:
        return folder / f"unit{index:04}.pt"


def key_of(graph: GraphModule, pieces: Iterable[Any], *texts: str) -> str:
    """A hash of a prepared and calibrated graph, of the data and of what else is said."""
    digest = hashlib.sha256()
    nodes = (f"{node.op} {node.name} {node.target} {node.args} {node.kwargs}" for node in graph.graph.nodes)
    for text in (str(VERSION), torch.__version__, *nodes, *texts):
        digest.update(text.encode() + b"\0")
    observers = [(name, each) for name, each in graph.named_modules() if isinstance(each, Observer)]
    for name, each in observers:
        how = (name, each.grid, each.ch_axis, each.estimator, getattr(each, "curve", None))
        digest.update(repr(how).encode() + b"\0")
    activations = (each for _, each in observers if isinstance(each, ActivationObserver))
    ranges = (value for each in activations for value in each.calculate_qparams())
    for value in (*graph.state_dict().values(), *ranges, *tree_leaves(list(pieces))):
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()[:32]
