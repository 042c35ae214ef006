"""The training loop."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import quartic
from isa.errors import QuantizationError
from quantizer import calibrate, convert, prepare, report
from quantizer.recipe import Recipe
from quantizer.smooth import Smooth
from quantizer.train.loop import Step, prepare_qat, train
from quantizer.train.options import Train


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    return nn.Sequential(*layers).eval()


def batches(count: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 2, 4, 4, generator=generator) for _ in range(count)]


TARGETS = [torch.arange(8).roll(i) % 3 for i in range(3)]


@cache  # no training changes it
def prepared(recipe: str = "w4a4") -> torch.fx.GraphModule:
    return calibrate(prepare(net(), (batches()[0],), recipe), batches())


def losses(**options: Any) -> list[float]:
    seen: list[Step] = []
    stage = options.pop("stage", Train(steps=30, rate=0.05))
    train(prepared(), options.pop("batches", batches()), stage=stage, progress=seen.append, **options)
    return [step.loss for step in seen]


@pytest.mark.slow
def test_training_lowers_the_loss_of_the_targets() -> None:
    found = losses(loss=functional.cross_entropy, targets=TARGETS)
    assert found[-1] < 0.7 * found[0]


@pytest.mark.slow
def test_without_targets_it_draws_near_the_float_model() -> None:
    module = train(prepared(), batches(), stage=Train(steps=60, rate=0.02, norms="frozen"))
    model, before = net(), convert(train(prepared(), batches(), stage=Train(steps=0)))
    after = convert(module)

    def error(graph: torch.fx.GraphModule) -> float:
        return sum((graph(x) - model(x)).square().mean().item() for x in batches())

    assert error(after) < 0.5 * error(before)


@pytest.mark.slow
def test_no_steps_change_nothing() -> None:
    found = convert(train(prepared(), batches(), stage=Train(steps=0)))
    expected = quartic.quantize(net(), (batches()[0],), batches(), "w4a4")
    assert torch.equal(found(batches()[1]), expected(batches()[1]))


def test_the_same_seed_gives_the_same_bits() -> None:
    stage = Train(steps=6, stochastic=True)
    one, two, other = (train(prepared(), batches(), stage=stage, seed=seed)(batches()[0]) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_progress_counts_the_steps_and_knows_the_rest() -> None:
    seen: list[Step] = []
    train(prepared(), batches(), stage=Train(steps=4), progress=seen.append)
    assert [(step.index, step.count) for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert str(Step("training", "loss 0.5", 2, 8, 10.0)) == "training loss 0.5, 2 of 8, 30 s to go"


class Shuffled:
    """Begins anew in another order."""

    def __init__(self) -> None:
        self.epochs = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.epochs += 1
        return iter(batches()[self.epochs % 3 :])


def test_an_iterable_begins_anew_until_the_steps_are_done() -> None:
    source = Shuffled()
    train(prepared(), source, stage=Train(steps=7))
    assert source.epochs == 4


def test_the_rate_falls_as_a_cosine() -> None:
    rates: list[float] = []

    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made = torch.optim.Adam(groups)
        made.register_step_pre_hook(lambda one, *_: rates.append(one.param_groups[0]["lr"]))
        return made

    train(prepared(), batches(), stage=Train(steps=4, rate=1.0), optimizer=optimizer)
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])


def test_decay_is_of_weights_alone() -> None:
    groups: list[dict[str, Any]] = []

    def optimizer(given: list[dict[str, Any]]) -> torch.optim.Optimizer:
        groups.extend(given)
        return torch.optim.SGD(given)

    train(prepared(), batches(), stage=Train(steps=1, decay=0.1), optimizer=optimizer)
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(2, 0.1), (3, 0.0)]


def test_the_average_of_the_weights_is_what_is_given() -> None:
    seen: list[torch.Tensor] = []

    def optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made = torch.optim.SGD(groups, 0.1)
        seen.append(groups[0]["params"][0].detach().clone())
        made.register_step_post_hook(lambda one, *_: seen.append(one.param_groups[0]["params"][0].detach().clone()))
        return made

    module = train(prepared(), batches(), stage=Train(steps=2, average=0.75, schedule="constant"), optimizer=optimizer)
    expected = seen[0].lerp(seen[1], 0.25).lerp(seen[2], 0.25)
    assert torch.equal(next(p for p in module.parameters() if p.dim() > 1), expected)


def test_a_loop_of_ones_own() -> None:
    module = prepare_qat(net(), (batches()[0],), batches(), "qat-w4a8").train()
    optimiser = torch.optim.Adam(module.parameters(), 1e-2)
    for x, y in zip(batches(), TARGETS, strict=True):
        optimiser.zero_grad()
        functional.cross_entropy(module(x), y).backward()
        optimiser.step()
    q = convert(module.eval())
    assert torch.equal(q(batches()[0]), module(batches()[0]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 1])
def test_quantize_trains_in_its_batches_for_whatever_size(size: int) -> None:
    recipe = replace(Recipe.load("qat-w4a8"), train=Train(steps=6, rate=0.05))
    options = dict(targets=TARGETS, loss=functional.cross_entropy)
    q = quartic.quantize(net(), (batches()[0][:size],), batches(), recipe, **options)
    expected = convert(train(prepared("w4a8"), batches(), options["loss"], targets=TARGETS, stage=recipe.train))
    x = batches()[1]
    found = torch.cat([quartic.reference(q)(piece)[0] for piece in x.split(size)])
    assert torch.equal(found, quartic.reference(expected)(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [{"smooth": Smooth()}, {}], ids=["smooth", "plain"])
def test_channels_are_scaled_alike_for_the_training_and_for_one_image(stage: dict[str, Any]) -> None:
    """And targets may be what is gone through once."""
    recipe = replace(Recipe.load("qat-w4a8"), train=Train(steps=6, rate=0.05, norms="frozen"), **stage)
    x = batches()[1]
    one, eight = (
        quartic.quantize(
            net(), (batches()[0][:size],), batches(), recipe, targets=iter(TARGETS), loss=functional.cross_entropy
        )
        for size in (1, 8)
    )
    found = torch.cat([quartic.reference(one)(piece)[0] for piece in x.split(1)])
    assert torch.equal(found, quartic.reference(eight)(x)[0])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 8])
def test_scaled_channels_leave_no_norms_to_correct(size: int) -> None:
    recipe = replace(Recipe.load("qat-w4a8"), smooth=Smooth())
    message = (
        "recipe qat-w4a8, changed: [smooth] folds the model's 1 batch norms, the first into 0.weight, before [train] "
        "could have norms = 'corrected': say norms = 'frozen', which trains the folded weights, or leave out [smooth]"
    )
    with pytest.raises(QuantizationError, match=re.escape(message)):
        quartic.quantize(net(), (batches()[0][:size],), batches(), recipe)
    without = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    few = replace(recipe, train=Train(steps=1))
    assert any(layer.scaled for layer in report(quartic.quantize(without, (batches()[0],), batches(), few)).layers)


ERRORS = [
    (
        dict(targets=TARGETS[:2], loss=functional.cross_entropy),
        "there are not as many targets as batches: give one target per batch",
    ),
    (
        dict(batches=iter(batches())),
        "the batches ended after 3 of 30 steps: give a list, or an iterable that begins anew",
    ),
    (dict(batches=[]), "the batches ended after 0 of 30 steps: give a list, or an iterable that begins anew"),
    (
        dict(batches=[torch.zeros(4, 2, 4, 4)]),
        "training batch 1 has shapes [(4, 2, 4, 4)], but the model was prepared for [(8, 2, 4, 4)]: prepare it for",
    ),
    (
        dict(loss=lambda output, _: output.sum() * math.nan),
        "the loss of step 1 is nan: lower rate = 0.05 of [train], or look at the batch",
    ),
    (dict(batches=None), "the batches to train on are a NoneType: give a list of them, as [x]"),
    (dict(batches=torch.zeros(8, 2, 4, 4)), "the batches to train on are a Tensor: give a list of them, as [x]"),
    (
        dict(batches=[torch.zeros(8, 2, 4, 4, dtype=torch.int64)]),
        "training batch 1 is of [torch.int64], but the model was prepared for [torch.float32]: convert it with .to()",
    ),
    (dict(loss=3), "the loss is a int: give a function of output and target, or None"),
    (
        dict(optimizer=torch.optim.SGD([torch.zeros(1)])),
        "the optimizer is a SGD: give a function that makes one of groups of parameters",
    ),
    (dict(loss=lambda *_: 3), "the loss gives a int, without a gradient: must be a tensor of one number"),
    (
        dict(loss=lambda output, target: output - target),
        "the loss gives a tensor of shape (8, 3), with a gradient: must be a tensor of one number that depends",
    ),
    (dict(loss=lambda *_: torch.ones(())), "the loss gives a tensor of shape (), without a gradient: must be"),
]


def test_only_what_is_prepared_can_be_trained_and_converted() -> None:
    with pytest.raises(QuantizationError, match=r"a Sequential cannot be trained: give what quartic\.prepare_qat"):
        train(net(), batches())  # pyright: ignore[reportArgumentType]
    with pytest.raises(QuantizationError, match="convert takes a calibrated graph or a trained module, not Seq"):
        convert(net())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_what_cannot_be_trained_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantizationError, match=re.escape(message)):
        losses(**options)


def test_a_model_without_parameters_has_nothing_to_train() -> None:
    x = torch.randn(2, 3)
    empty = calibrate(prepare(nn.Softmax(-1).eval(), (x,), "w8a8"), [x])
    with pytest.raises(QuantizationError, match="the model has no parameters to train"):
        train(empty, [x], stage=Train(steps=1))


def test_a_recipe_without_a_training_is_named() -> None:
    with pytest.raises(QuantizationError, match=re.escape("recipe w4a8 does not train: give it a table [train]")):
        prepare_qat(net(), (batches()[0],), batches(), "w4a8")


def test_a_module_keeps_the_stage_that_it_has() -> None:
    module = prepare_qat(net(), (batches()[0],), batches(), "qat-w8a8")
    with pytest.raises(QuantizationError, match="the module to train has its stage already"):
        train(module, batches(), stage=Train(steps=3))
