"""A graph to train is the graph that is converted, with live norms."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional

import quartic
from isa.errors import QuantizationError
from quantizer import calibrate, convert, prepare, quantize
from quantizer.polish import Polish
from quantizer.recipe import Recipe
from quantizer.train.loop import prepare_qat
from quantizer.train.module import Trainable
from quantizer.train.options import NORMS, RANGES, Train


class Net(nn.Module):
    """What folds and what does not: depthwise, with and without bias and affine norms, tied weights, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depth = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8, affine=False), nn.ReLU())
        self.point = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, eps=1e-3))
        self.plain = nn.Conv2d(8, 8, 1)
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, 2), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.point(self.depth(x)))
        x = self.up(self.plain(self.plain(x)))
        return self.head(x.mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def images(seed: int, count: int = 4) -> torch.Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


@cache  # nothing that a training does changes it
def calibrated(recipe: str = "w4a8") -> torch.fx.GraphModule:
    return calibrate(prepare(net(), (images(0),), recipe), [images(0, 8)])


def trained(module: Trainable, steps: int, rate: float = 0.05) -> Trainable:
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9)
    for step in range(steps):
        optimiser.zero_grad()
        functional.cross_entropy(module(images(step)), torch.arange(4)).backward()
        optimiser.step()
    return module.eval()


def codes(graph: torch.fx.GraphModule) -> Iterator[torch.Tensor]:
    return (value for _, value in sorted(graph.named_buffers()) if not value.is_floating_point())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w8a8", "w4a8", "w4a4", "w8a16"])
def test_before_training_it_converts_as_without(recipe: str) -> None:
    module = Trainable(calibrated(recipe), Train())
    found, expected = convert(module), quantize(net(), (images(0),), [images(0, 8)], recipe)
    assert all(map(torch.equal, codes(found), codes(expected)))
    assert torch.equal(found(images(1)), expected(images(1)))


@pytest.mark.slow
@pytest.mark.parametrize(("norms", "ranges"), [*product(NORMS, RANGES)])
def test_in_eval_mode_it_computes_what_the_converted_graph_does(norms: str, ranges: str) -> None:
    module = trained(Trainable(calibrated(), Train(steps=6, norms=norms, ranges=ranges)), 6)
    converted = convert(module)
    for seed in range(20, 24):
        assert torch.equal(module(images(seed)), converted(images(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["w4a8", "w4a4"])
def test_what_is_trained_has_the_same_bits_on_the_simulator(recipe: str) -> None:
    module = trained(Trainable(calibrated(recipe), Train(steps=4)), 4)
    converted = convert(module)
    expected = quartic.reference(converted)(images(9))
    run = quartic.simulate(quartic.compile(converted, "tiny"), images(9))
    assert all(map(torch.equal, run.outputs, expected))


@pytest.mark.slow
def test_codebooks_stay_as_calibrated_and_pass_gradients() -> None:
    recipe = replace(Recipe.load("w4a4"), polish=Polish(modules=("plain", "head")))
    recipe = replace(recipe, train=Train(steps=4, norms="frozen"))
    module = prepare_qat(net(), (images(0),), [images(0, 8)], recipe)
    before = convert(module)
    assert "quantize_codebook" in str(before.graph)
    converted = convert(trained(module, 4))
    assert torch.equal(module(images(7)), converted(images(7)))
    assert not torch.equal(before(images(7)), converted(images(7)))
    books = [[n.args[1] for n in q.graph.nodes if "quantize_codebook" in str(n.target)] for q in (before, converted)]
    assert books[0] == books[1]


def test_no_fake_quantizer_lies_between_operators_of_one_kernel() -> None:
    module, chains = Trainable(calibrated(), Train()), []
    graph, quantizers = module.graph.graph, {name for name in module.graph._modules if "activation_post" in name}
    for node in graph.nodes:
        if "relu" in node.name or "hardtanh" in node.name or node.name.startswith("add"):
            made = [n for n in node.all_input_nodes if n.target not in quantizers]
            chains.append((node.name, [n.name for n in made]))
    assert chains == [
        ("hardtanh", ["normed_conv2d"]),
        ("relu", ["normed_conv2d_1"]),
        ("add", ["normed_conv2d_2"]),  # the other operand is read from memory, and so rescaled as on the chip
        ("relu_1", ["add"]),
        ("relu_2", ["normed_linear"]),
    ]


def test_weights_are_exactly_what_their_codes_are() -> None:
    finished = trained(Trainable(calibrated(), Train(steps=4)), 4).finish()
    before = {name: value.clone() for name, value in finished.named_parameters()}
    converted = convert(finished)
    constants = dict(converted.named_buffers()) | dict(converted.named_parameters())
    checked = 0
    for node in converted.graph.nodes:
        if "dequantize_per_channel" in str(node.target):
            value = node.target(*(constants[a.target] if isinstance(a, torch.fx.Node) else a for a in node.args))
            checked += any(torch.equal(value, weight) for weight in before.values())
    assert checked == 8


@pytest.mark.slow
@pytest.mark.parametrize("norms", NORMS)
def test_every_parameter_learns_and_the_model_stays_as_it_was(norms: str) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    prepared = calibrate(prepare(model, (images(0),), "w4a8"), [images(0)])
    module = Trainable(prepared, Train(steps=3, norms=norms))
    assert len(list(module.parameters())) == len(list(model.parameters()))
    trained(module, 3)
    assert all(value.grad is not None and value.grad.any() for value in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_tied_weight_stays_tied() -> None:
    module = Trainable(calibrated(), Train())
    assert sum(value.shape == (8, 8, 1, 1) for value in module.parameters()) == 2  # point, and plain for two products


def test_corrected_norms_without_quantization_train_as_batch_norms_do() -> None:
    model, module = net(), Trainable(calibrated(), Train(delay=1.0, delay_activations=1.0))
    found, expected = module.train()(images(3)), model.train()(images(3))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    (norm,) = (m for n, m in module.graph.named_children() if n == "normed_conv2d")
    torch.testing.assert_close(norm.mean, model.stem[1].running_mean)
    torch.testing.assert_close(norm.variance, model.stem[1].running_var)


def test_naive_norms_without_quantization_do_too() -> None:
    stage = Train(norms="naive", delay=1.0, delay_activations=1.0)
    model, module = net(), Trainable(calibrated(), stage)
    torch.testing.assert_close(module.train()(images(3)), model.train()(images(3)), atol=1e-5, rtol=1e-4)
    (norm,) = (m for n, m in module.graph.named_children() if n == "normed_conv2d")
    torch.testing.assert_close(norm.variance, model.stem[1].running_var)


def quantized_weights(norms: str, freeze: float = 1.0) -> list[torch.Tensor]:
    """Of the first product in two steps whose batches differ, the weights not moving."""
    module = Trainable(calibrated(), Train(steps=2, norms=norms, freeze_norms=freeze)).train()
    seen: list[torch.Tensor] = []
    stem = module.graph.normed_conv2d
    stem.quantizer.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    stem.momentum = 0.0
    module(images(1))
    module(images(2) * 3)
    return seen


def test_only_naive_norms_move_the_codes_of_weights_with_the_batch() -> None:
    assert not torch.equal(*quantized_weights("naive"))
    assert torch.equal(*quantized_weights("corrected"))
    assert torch.equal(*quantized_weights("frozen"))


def test_norms_freeze_at_their_share_of_the_steps() -> None:
    module = Trainable(calibrated(), Train(steps=4, freeze_norms=0.5)).train()
    norm, means = module.graph.normed_conv2d, []
    for step in range(4):
        module(images(step))
        means.append(norm.mean.clone())
    assert not torch.equal(means[0], means[1])
    assert torch.equal(means[1], means[3])


def test_frozen_norms_in_training_compute_what_eval_mode_does() -> None:
    module = Trainable(calibrated(), Train(norms="frozen", ranges="fixed"))
    assert torch.equal(module.train()(images(1)), module.eval()(images(1)))


def test_a_dead_channel_divides_by_nothing() -> None:
    model = net()
    with torch.no_grad():
        model.stem[1].weight[0] = 0
    module = Trainable(calibrate(prepare(model, (images(0),), "w4a8"), [images(0)]), Train())
    output = module.train()(images(1))
    output.sum().backward()
    assert all(value.grad.isfinite().all() for value in module.parameters())


def test_training_can_go_on_after_a_look_at_the_result() -> None:
    looked, straight = (Trainable(calibrated(), Train(steps=4)) for _ in range(2))
    trained(looked, 2)
    convert(looked)
    trained(straight, 2)
    assert torch.equal(trained(looked, 2)(images(7)), trained(straight, 2)(images(7)))


@pytest.mark.slow
def test_a_checkpoint_goes_on_where_it_was() -> None:
    one = trained(Trainable(calibrated(), Train(steps=4)), 2)
    two = Trainable(calibrated(), Train(steps=4))
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    assert two.clock.step == 1
    assert torch.equal(trained(one, 2)(images(7)), trained(two, 2)(images(7)))


@pytest.mark.slow
def test_what_was_trained_in_batches_serves_one_image() -> None:
    module = trained(Trainable(calibrated(), Train(steps=4)), 4)
    one = convert(module.finish(prepare(net(), (images(0, 1),), "w4a8")))
    x = images(5)
    assert torch.equal(torch.cat([quartic.reference(one)(x[i : i + 1])[0] for i in range(4)]),
                       quartic.reference(convert(module))(x)[0])  # fmt: skip


@pytest.mark.slow
def test_a_graph_of_another_recipe_does_not_take_what_was_trained() -> None:
    message = "a training of 16 quantized tensors does not fit a graph with 16: prepare the model that was trained"
    with pytest.raises(QuantizationError, match=re.escape(message)):
        Trainable(calibrated(), Train()).finish(prepare(net(), (images(0, 1),), "w8a8"))


def test_a_graph_without_calibration_is_refused() -> None:
    with pytest.raises(QuantizationError, match="was not calibrated: run calibrate"):
        Trainable(prepare(net(), (images(0),), "w4a8"), Train())
