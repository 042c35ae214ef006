"""What networks are tried on: ordinary and extreme inputs, and weights that drive a transformer into its corners."""

from __future__ import annotations

import torch
from torch import nn

SPECIAL = (float("nan"), float("inf"), float("-inf"), -0.0, 1e-45, 3.4e38)


def probes(shape: tuple[int, ...], seed: int = 11) -> dict[str, torch.Tensor]:
    """Inputs of ``shape`` (batch included) by what they are; the first is random and of the scale of calibration."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator)
    uniform = torch.rand(shape, generator=generator) * 2 - 1
    special = normal.clone().flatten()
    special[: len(SPECIAL)] = torch.tensor(SPECIAL)[: len(special)]
    spike = torch.zeros(normal.numel())
    spike[len(spike) // 2] = 1e4
    return {
        "random": normal,
        "uniform": uniform,
        "saturated high": torch.full(shape, 1e6),
        "saturated low": torch.full(shape, -1e6),
        "zeros": torch.zeros(shape),
        "ties": torch.where(normal > 0, 1e3, -1e3),
        "no numbers": special.reshape(shape),
        "denormals": normal * 1e-40,
        "one spike": spike.reshape(shape),
    }


def _scaled(name: str, factor: float, bias: bool = True) -> dict[str, float]:
    return {f"{name}.weight": factor, **({f"{name}.bias": factor} if bias else {})}


PLANTS: dict[str, dict[str, float]] = {
    "equal scores": _scaled("attn.qkv", 0.0),
    "peaked scores": _scaled("attn.qkv", 50.0),
    "huge variance": {**_scaled("patch_embed.proj", 1e15), "pos_embed": 1e15},
    "tiny variance": {**_scaled("patch_embed.proj", 1e-15), "pos_embed": 1e-15, "cls_token": 1e-15},
    "no variance": {**_scaled("patch_embed.proj", 0.0), "pos_embed": 0.0, "cls_token": 0.0},
    "huge activations": _scaled("mlp.fc1", 1e4),
}
"""By what it does to softmax, layer norm and GELU: parameters of the transformers of the zoo, and their factors."""


def plant(model: nn.Module, name: str) -> nn.Module:
    """``model`` with its parameters scaled in place as ``PLANTS[name]`` says; KeyError where it has none of them."""
    factors = PLANTS[name]
    found: set[str] = set()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            for suffix, factor in factors.items():
                if key == suffix or key.endswith(f".{suffix}"):
                    parameter.mul_(factor)
                    found.add(suffix)
    if missing := set(factors) - found:
        raise KeyError(f"{type(model).__name__} has no parameter {', '.join(sorted(missing))}")
    return model
