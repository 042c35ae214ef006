"""Training of a graph that a quantizer of torchao annotated."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

import quartic
from quantizer import convert
from quantizer.train.loop import train
from quantizer.train.options import Train


def images(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def prepared(per_channel: bool) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)
    graph = quartic.export(nn.Sequential(*layers).eval(), (images(0),))
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=per_channel))
    graph = prepare_pt2e(graph, quantizer)
    graph(images(0))
    return graph


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("per_channel", [True, False])
def test_it_trains_and_has_the_bits_of_the_simulator(per_channel: bool) -> None:
    before, losses = prepared(per_channel), []
    batches, targets = [images(i) for i in range(3)], [torch.arange(4)] * 3
    module = train(before, batches, functional.cross_entropy, targets=targets, stage=Train(steps=9, rate=0.02),
                   progress=lambda step: losses.append(step.loss))  # fmt: skip
    q = convert(module)
    assert torch.equal(module(images(5)), q(images(5)))
    run = quartic.simulate(quartic.compile(q, "tiny"), images(5))
    assert all(map(torch.equal, run.outputs, quartic.reference(q)(images(5))))
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.slow
def test_without_steps_it_converts_as_torchao_does() -> None:
    graph = prepared(per_channel=True)
    found = convert(train(graph, [images(0)], stage=Train(steps=0)))
    assert torch.equal(found(images(5)), convert_pt2e(graph)(images(5)))
