"""What networks are tried on: ordinary and extreme inputs, and weights that drive a transformer into its corners."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

Factors = tuple[float, ...]
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


def same_bits(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether as many tensors have the same types, shapes and bits: of binary32 also those of NaN and of zeros."""
    return len(some) == len(others) and all(
        one.dtype == other.dtype and torch.equal(bits(one), bits(other))
        for one, other in zip(some, others, strict=True)
    )


def bits(x: torch.Tensor) -> torch.Tensor:
    """What ``x`` holds as integers, binary32 as int32."""
    return x.contiguous().view(torch.int32) if x.dtype == torch.float32 else x


def _layers(factors: Factors, *names: str) -> dict[str, Factors]:
    return {f"{name}.{part}": factors for name in names for part in ("weight", "bias")}


def _stream(factor: float) -> dict[str, Factors]:
    """Everything that adds to the residual stream."""
    layers = _layers((factor,), "patch_embed.proj", "attn.proj", "mlp.fc2")
    return {**layers, "pos_embed": (factor,), "cls_token": (factor,)}


PLANTS: dict[str, dict[str, Factors]] = {
    "equal scores": _layers((0.0, 1.0, 1.0), "attn.qkv"),
    "peaked scores": _layers((30.0, 30.0, 1.0), "attn.qkv"),
    "huge variance": _stream(1e15),
    "tiny variance": _stream(1e-4),
    "vanishing variance": _stream(1e-30),
    "no variance": _stream(0.0),
    "saturated GELU": _layers((1e3,), "mlp.fc1"),
}
"""By what it does to softmax, layer norm and GELU: parameters of the transformers of the zoo, and the factors of as
many equal parts of each."""


def plant(model: nn.Module, name: str) -> nn.Module:
    """``model`` with its parameters scaled in place as ``PLANTS[name]`` says; KeyError where it has none of them."""
    wanted = PLANTS[name]
    found: set[str] = set()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            for suffix, factors in wanted.items():
                if key == suffix or key.endswith(f".{suffix}"):
                    for part, factor in zip(parameter.chunk(len(factors)), factors, strict=True):
                        part.mul_(factor)
                    found.add(suffix)
    if missing := set(wanted) - found:
        raise KeyError(f"{type(model).__name__} has no parameter {', '.join(sorted(missing))}")
    return model
