"""Weights come back from a file bit by bit; a file that does not fit is refused by its path and its keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.zoo.depth_anything import DepthAnything, depth_anything
from benchmarks.zoo.metric3d import Metric3D, metric3d, metric3d_small
from benchmarks.zoo.vit import WIDTHS, Dino, ViT
from isa.errors import InputError

Loader = Callable[[Path], nn.Module]
IMAGE = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
SQUARE = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Loader, tuple[Any, ...]]] = {
    "vit": (
        lambda: ViT(WIDTHS["nano"], 48, 16, 10),
        lambda path: ViT.from_pretrained(path, "nano", 48, 16, 10),
        (SQUARE,),
    ),
    "dino": (
        lambda: Dino(WIDTHS["nano"], 4),
        lambda path: Dino.from_pretrained(path, "nano", 4),
        (IMAGE, (1, 3)),
    ),
    "depth anything": (
        lambda: depth_anything("nano"),
        lambda path: DepthAnything.from_pretrained(path, "nano"),
        (IMAGE,),
    ),
    "metric3d": (metric3d_small, lambda path: metric3d_small().load_published(path), (IMAGE,)),
}


def made(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval()


def outputs(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        found = model(*inputs)
    return (found,) if isinstance(found, torch.Tensor) else tuple(found)


@pytest.mark.parametrize("wrapped", [None, "model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("name", NETWORKS)
def test_saved_weights_give_the_same_outputs(tmp_path: Path, name: str, wrapped: str | None) -> None:
    build, load, inputs = NETWORKS[name]
    model, path = made(build), tmp_path / "weights.pth"
    state = model.state_dict()
    torch.save(state if wrapped is None else {wrapped: state, "epoch": 3}, path)
    loaded = made(lambda: load(path), seed=1)
    assert not loaded.training
    expected = outputs(model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(outputs(loaded, inputs), expected, strict=True))
    other = outputs(made(build, seed=1), inputs)
    assert not all(torch.equal(a, b) for a, b in zip(other, expected, strict=True))  # or nothing was shown


@pytest.mark.slow
def test_metric3d_of_the_published_size(tmp_path: Path) -> None:
    model, path = made(partial(metric3d, "s")), tmp_path / "published.pth"
    state = {f"module.depth_model.{k.replace('blocks.', 'blocks.0.')}": v for k, v in model.state_dict().items()}
    torch.save({"model_state_dict": state}, path)
    expected = outputs(model, (IMAGE,))
    loaded = outputs(Metric3D.from_pretrained(path, "s"), (IMAGE,))
    assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))


def said(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_keys_that_do_not_fit_are_named(tmp_path: Path, name: str) -> None:
    build, load, _ = NETWORKS[name]
    model, path = made(build), tmp_path / "weights.pth"
    state = model.state_dict()
    first, second, *_, last = (key for key in state if "mask_token" not in key)
    del state[first]
    state["nobodys.weight"] = torch.zeros(1)
    shape = list(state[last].shape)
    state[last] = torch.zeros(*shape, 2)
    torch.save(state, path)
    assert said(lambda: load(path)) == (
        f"{path}: does not fit {type(model).__name__}; is it of another size or version?\n"
        f"  1 missing: {first}\n"
        f"  1 unexpected: nobodys.weight\n"
        f"  1 of another shape: {last} has shape {[*shape, 2]}, not {shape}"
    )
    assert second in state


def test_a_checkpoint_of_another_size_names_the_first_keys(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(made(lambda: ViT(WIDTHS["nano"], 48, 16, 10)).state_dict(), path)
    message = said(lambda: ViT.from_pretrained(path, "t", 48, 16, 10))
    assert message.startswith(f"{path}: does not fit ViT; is it of another size or version?\n  96 missing: blocks.4.")
    assert " of another shape: cls_token has shape [1, 1, 48], not [1, 1, 192], " in message
    assert message.endswith(", ...")


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_files_that_are_no_checkpoints(tmp_path: Path, name: str) -> None:
    load, path = NETWORKS[name][1], tmp_path / "weights.pth"
    assert said(lambda: load(path)) == f"{path}: no such file; expected a checkpoint that torch.save wrote"
    for data in (b"", b"no checkpoint", b"PK\x03\x04" + bytes(50)):
        path.write_bytes(data)
        message = said(lambda: load(path))
        assert message.startswith(f"{path}: cannot be read as a checkpoint (")
        assert message.endswith("); expected one of torch.save")
    for value, what in ((torch.zeros(3), "Tensor"), ([1], "list"), ({}, "a dict of []"), ({"a": 1}, "a dict of ['a']")):
        torch.save(value, path)
        assert said(lambda: load(path)) == f"{path}: holds {what}: must be a state dict, names to tensors"


def test_sizes_and_versions_that_nobody_has(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    assert said(lambda: DepthAnything.from_pretrained(path, "xl")) == "unknown size 'xl': must be one of nano, s, b, l"
    assert said(lambda: DepthAnything.from_pretrained(path, "nano", 1)) == "unknown size 'nano': must be one of s, b, l"
    assert said(lambda: DepthAnything.from_pretrained(path, "s", 3)) == "unknown version 3: must be one of 2, 1"
    assert said(lambda: Metric3D.from_pretrained(path, "b")) == "unknown size 'b': must be one of s, l"
    assert said(lambda: Dino.from_pretrained(path, "xs")) == "unknown size 'xs': must be one of nano, t, s, b, l"
    assert said(lambda: ViT.from_pretrained(path, "xs")) == "unknown size 'xs': must be one of nano, t, s, b, l"
