"""One row: a network quantized or trained by a case, and its accuracy in device numerics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional

import quartic
from benchmarks import digits
from benchmarks.classify.cases import Case
from benchmarks.classify.rescale import rescaled
from benchmarks.classify.train import BATCH, Epochs, Subject, dataset, trained
from benchmarks.zoo import digits as zoo
from quantizer import capture, report
from quantizer.train.module import Trainable

CALIBRATION = 10
"""Batches."""
PEEKS, PEEK_IMAGES = 10, 500
"""How often accuracy is taken in the last half of a training that is watched, and on how many images."""
Row = dict[str, Any]


def data(network: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images and labels, and those for testing, whole batches of them."""
    if network != "digits":
        return dataset()
    images, labels, held_out, truth = digits.dataset()
    count = len(held_out) // BATCH * BATCH
    return images, labels, held_out[:count], truth[:count]


@cache
def network(name: str, seed: int, act: str, width: float, scratch: bool) -> nn.Module:
    """The float network in eval mode."""
    if name == "digits":
        return digits.train(seed) if seed else zoo.trained()  # seed 0 is the checkpoint's
    subject = Subject("separable" if name == "rescaled" else name, seed, act, width)
    model = subject.fresh().eval() if scratch else trained(subject)
    return rescaled(model, seed) if name == "rescaled" else model


@cache
def captured(*what: Any) -> GraphModule:
    """The graph of ``network`` for a batch."""
    return capture(network(*what), (data(what[0])[2][:BATCH],))


def measure(case: Case, name: str, seed: int) -> Row:
    """Accuracy, CPU seconds, and bytes with scales, zero points and what stayed float."""
    what = name, seed, case.act, case.width, case.scratch
    network(*what)
    captured(*what)
    images, labels, held_out, truth = data(name)
    start = time.process_time()
    if case.recipe is None:
        model = network(*what)
        size = 4 * sum(value.numel() for value in model.parameters())
        return {"accuracy": accuracy(model, held_out, truth), "bytes": size, "seconds": time.process_time() - start}
    example, ranges = (held_out[:BATCH],), [(batch,) for batch in images[: CALIBRATION * BATCH].split(BATCH)]
    row: Row = {}
    if case.recipe.train is None:
        q = quartic.quantize(captured(*what), example, ranges, case.recipe)
    else:
        module = quartic.prepare_qat(captured(*what), example, ranges, case.recipe, seed=seed)
        peeks = _Peeks(module, held_out[:PEEK_IMAGES], truth[:PEEK_IMAGES]) if case.watched else None
        quartic.train(
            module,
            Epochs(images, seed),
            functional.cross_entropy,
            targets=Epochs(labels, seed),
            optimizer=torch.optim.Adam if name == "rescaled" else None,
            progress=peeks,
        )
        q = quartic.convert(module)
        if peeks is not None:
            row["jitter"] = torch.tensor(peeks.seen).std().item()
    row["seconds"] = time.process_time() - start
    runs = quartic.reference(q) if case.recipe.compiles else q  # no machine has products of codes and binary32
    return {**row, "accuracy": accuracy(runs, held_out, truth), "bytes": report(q).size.total // 8}


@torch.no_grad()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images whose largest logit is the label."""
    outputs = [model(x) for x in images.split(BATCH)]
    logits = torch.cat([y[0] if isinstance(y, tuple) else y for y in outputs])
    return digits.accuracy(logits, labels)


class _Peeks:
    """Takes accuracy on the way, in eval mode."""

    def __init__(self, module: Trainable, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.module, self.images, self.labels = module, images, labels
        self.seen: list[float] = []

    def __call__(self, step: Any) -> None:
        if step.index * 2 > step.count and step.index % (step.count // (2 * PEEKS)) == 0:
            with _evaluated(self.module):
                self.seen.append(accuracy(self.module, self.images, self.labels))


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    module.eval()
    yield
    module.train()
