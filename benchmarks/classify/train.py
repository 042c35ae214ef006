"""Float networks for the shapes, trained once and kept in ``build/classify`` under a hash of what they depend on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.classify import networks, shapes
from benchmarks.zoo import NETWORKS as ZOO
from benchmarks.zoo import layers

FOLDER = Path("build/classify")
TRAIN_IMAGES, TEST_IMAGES = 10000, 2000
BATCH, EPOCHS, RATE = 100, 4, 1e-2
ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6}


@dataclass(frozen=True)
class Subject:
    """A network, what it is made of, and the seed of its weights and of the order of the images."""

    network: str
    seed: int
    act: str = "relu"
    width: float = 1.0

    def fresh(self) -> nn.Module:
        """Not trained."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return networks.NETWORKS[self.network](self.width, ACTIVATIONS[self.act])


@cache
def dataset() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training pictures and labels, and others for testing."""
    train, test = shapes.pictures(TRAIN_IMAGES, shapes.TRAIN), shapes.pictures(TEST_IMAGES, shapes.TEST)
    images, labels, held_out, truth = map(torch.from_numpy, (*train, *test))
    return images, labels, held_out, truth


class Epochs:
    """Batches in a new order each time it begins; of what, ``part`` says: the pictures or the labels of a set.

    Two of one seed keep step.
    """

    def __init__(self, values: torch.Tensor, seed: int, batch: int = BATCH) -> None:
        self.values = values
        self.batch = batch
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch.randperm(len(self.values), generator=self.generator)
        for chosen in order[: len(order) // self.batch * self.batch].split(self.batch):
            yield self.values[chosen]


def fit(model: nn.Module, seed: int, epochs: int = EPOCHS) -> nn.Module:
    """Train ``model`` in place, from where it is."""
    images, labels, _, _ = dataset()
    pictures, truths = Epochs(images, seed), Epochs(labels, seed)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for x, y in zip(pictures, truths, strict=True):
            optimiser.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def trained(subject: Subject) -> nn.Module:
    """The network in eval mode: from the folder, or trained now."""
    said = f"{subject.network}-{subject.act}-{subject.width}-{subject.seed}"
    return _kept(subject.fresh(), said, str(subject), subject.seed)


def trained_of_zoo(name: str) -> nn.Module:
    """A network of ``benchmarks.zoo`` that takes pictures, trained on those of 32 x 32: the first 10 logits count."""
    return _kept(ZOO[name].model(0, tuple(dataset()[0].shape[1:])), f"{name}-0", name, 0)


def _kept(model: nn.Module, file: str, said: str, seed: int) -> nn.Module:
    """``model`` trained, in eval mode; in ``file`` under a hash of what is ``said`` of it and what it depends on."""
    modules = (shapes, layers, sys.modules[type(model).__module__])
    settings = f"{said} {TRAIN_IMAGES} {BATCH} {EPOCHS} {RATE}".encode()
    sources = (Path(module.__file__ or "").read_bytes() for module in modules)
    path = FOLDER / f"{file}-{hashlib.sha256(b''.join([*sources, settings])).hexdigest()[:12]}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    fit(model, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model
