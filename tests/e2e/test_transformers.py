"""Models of the ``transformers`` library from a configuration, random weights: the chip gives the reference's bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import quartic
from quantizer import capture
from tests.e2e.support import assert_bits, probes, quantized

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip


class First(nn.Module):
    """A model whose result is one tensor of what it returns."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The tensor called ``name``."""
        return getattr(self.model(pixel_values), self.name)


def classifier(kind: str, attention: str) -> nn.Module:
    import transformers  # a second, which the collection of the other tests need not wait for

    config = getattr(transformers, f"{kind}Config")(**SMALL, image_size=32, patch_size=8, num_labels=5)
    config._attn_implementation = attention
    return First(getattr(transformers, f"{kind}ForImageClassification")(config), "logits")


def depth(attention: str) -> nn.Module:
    import transformers

    backbone = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=56, patch_size=14,
        out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, patch_size=14, neck_hidden_sizes=[8, 16, 24, 24],
        fusion_hidden_size=16, head_hidden_size=8, reassemble_factors=[4, 2, 1, 0.5],
    )  # fmt: skip
    config._attn_implementation = "eager"  # the class itself has no other; its backbone does
    config.backbone_config._attn_implementation = attention
    return First(transformers.DepthAnythingForDepthEstimation(config), "predicted_depth")


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ViT, sdpa": (lambda: classifier("ViT", "sdpa"), 32),
    "ViT, eager": (lambda: classifier("ViT", "eager"), 32),
    "DeiT": (lambda: classifier("DeiT", "sdpa"), 32),
    "Depth Anything, sdpa": (lambda: depth("sdpa"), 56),
    "Depth Anything, eager": (lambda: depth("eager"), 56),
}


CASES = [
    *((name, recipe) for name in MODELS if "eager" not in name for recipe in ("w8a8", "w4a8", "w4a4", "f32")),
    *((name, "w4a8") for name in MODELS if "eager" in name),  # the same operators once attention is written out
]


@lru_cache(maxsize=1)
def captured(name: str) -> tuple[GraphModule, tuple[int, ...]]:
    torch.manual_seed(0)
    build, side = MODELS[name]
    shape = (1, 3, side, side)
    return capture(build().eval(), torch.zeros(shape)), shape


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize(("name", "recipe"), CASES)
def test_models_from_their_configuration(name: str, recipe: str) -> None:
    graph, shape = captured(name)
    q = quantized(graph, shape, recipe=recipe)
    assert_bits(q, probes(shape)[::3])
    assert len(quartic.reference(q)(probes(shape)[0])[0].unique()) > 1
