"""Kronecker factors and gradients: against the exact Fisher information of single samples, and against autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from quantizer import calibrate, prepare
from quantizer.reconstruct.fisher import activations, second_moments, squared_error
from quantizer.reconstruct.layer import layers
from quantizer.reconstruct.moments import Moments
from quantizer.reconstruct.quadratic import Quadratic
from quantizer.reconstruct.units import results, units
from quantizer.reconstruct.walk import Walk, plain, quantized
from tests.quantizer.reconstruct.networks import calibrated, images, network, recipe


def test_one_sample_s_kronecker_factors_are_its_exact_fisher_information(tmp_path: Path) -> None:
    """Of a linear layer, one token, one target: F = vec(dL/dW) vec(dL/dW)^T = (g g^T) kron (x x^T)."""
    torch.manual_seed(0)
    layer, x, target = nn.Linear(5, 3).eval(), torch.randn(1, 5), torch.randn(1, 3)
    graph = calibrate(prepare(layer, x, "w4a4"), [x])
    walk = Walk(graph)
    (unit,) = units(walk, layers(graph), "layer")
    (found,) = second_moments(walk, [unit], [(x,)], "kfac", tmp_path, [target])
    values = walk.start([x])
    walk.run(values, 0, unit.first, quantized)
    held = values[unit.layers[0].source]
    weight = layer.weight.detach().clone().requires_grad_()
    loss = squared_error(nn.functional.linear(held, weight, layer.bias.detach()), target)
    (gradient,) = torch.autograd.grad(loss, weight)
    fisher = torch.outer(gradient.reshape(-1), gradient.reshape(-1))
    moments = Moments.empty(1, 5, x.device)
    moments.add(held.T[None], held.T[None])
    form = Quadratic(found[unit.layers[0].node], moments.mixed(1.0)[1], torch.zeros(1, 3, 5))
    scale = float((gradient.square().sum() / held.square().sum()) / 3)  # the mean of the diagonal of G is 1
    for seed in range(5):
        change = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(seed))
        expected = float(change.reshape(-1) @ fisher @ change.reshape(-1))
        assert form.of(change) * scale == pytest.approx(expected, rel=1e-3)


def test_gradients_that_go_back_unit_by_unit_are_those_of_the_whole_model(tmp_path: Path) -> None:
    graph = calibrated(recipe())
    walk = Walk(graph)
    parts = units(walk, layers(graph), "layer")
    found = second_moments(walk, parts, images(1), "fisher", tmp_path)
    nodes = [unit.layers[0].node for unit in parts]
    values = walk.start([images()[0][0].clone().requires_grad_()])
    walk.run(values, 0, len(walk.nodes), activations, keep=nodes)
    with torch.no_grad():
        aim = network()(*images()[0])
    gradients = torch.autograd.grad(squared_error(walk.outputs(values), aim), [values[node] for node in nodes])
    for unit, moment, gradient in zip(parts, found, gradients, strict=True):
        squares = unit.layers[0].outputs(gradient, 2 if unit.layers[0].is_linear else 4).square().sum(-1, keepdim=True)
        torch.testing.assert_close(moment[unit.layers[0].node], squares / squares.mean())


def test_a_block_is_weighed_by_its_results_squared_gradient(tmp_path: Path) -> None:
    graph = calibrated(recipe())
    walk = Walk(graph)
    parts = units(walk, layers(graph), "block")
    found = second_moments(walk, parts, images(2), "fisher", tmp_path)
    block = next(i for i, unit in enumerate(parts) if unit.layer is None)
    (node,) = results(walk, parts[block])
    assert found[block][node].shape == node.meta["val"].shape
    assert float(found[block][node].mean()) == pytest.approx(1.0)


def test_what_a_run_knows_of_all_layers_lies_in_files(tmp_path: Path) -> None:
    """Memory need not hold the factors of a whole model."""
    graph = calibrated(recipe())
    walk = Walk(graph)
    found = second_moments(walk, units(walk, layers(graph), "layer"), images(2), "kfac", tmp_path)
    held = [str(moment.untyped_storage().filename) for moments in found for moment in moments.values()]
    assert sorted(held) == sorted(str(path) for path in tmp_path.iterdir())
    assert len(held) == len(layers(graph))


@pytest.mark.slow
def test_a_walk_in_pieces_computes_what_the_model_does_and_holds_no_more_than_is_read() -> None:
    """However deep the network: at any place only a block's input and one value on the way."""
    most = []
    for depth in (2, 6):
        graph = calibrated(recipe(), depth)
        walk = Walk(graph)
        values = walk.start(images()[0])
        sizes = []
        for place in range(len(walk.nodes) - 1):  # but the output, whose values stay
            walk.run(values, place, place + 1, plain)
            sizes.append(len(values))
            assert all(walk.last[node] > place for node in values)
        assert torch.equal(walk.outputs(values), network(depth)(*images()[0]).detach())
        most.append(max(sizes))
    assert most == [2, 2]


def test_units_are_layers_or_the_smallest_blocks_that_repeat() -> None:
    graph = calibrated(recipe())
    walk = Walk(graph)
    found = {scope: units(walk, layers(graph), scope) for scope in ("layer", "block")}
    inside = ["blocks.0.depthwise", "blocks.0.pointwise", "blocks.1.depthwise", "blocks.1.pointwise"]
    assert [unit.name for unit in found["layer"]] == ["stem", *inside, "mix", "up"]
    assert [unit.name for unit in found["block"]] == ["stem", "blocks.0", "blocks.1", "mix", "up"]
    assert [[layer.name for layer in unit.layers] for unit in found["block"][1:3]] == [inside[:2], inside[2:]]
    (node,) = results(walk, found["block"][1])
    assert "add" in node.name  # the residual sum is what a block's error is measured at
