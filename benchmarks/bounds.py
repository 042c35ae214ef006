"""Lower bounds of a float network on a machine, from its layers as hooks see them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from isa.instructions import STORED_BITS, Mode
from isa.machine import Machine
from runtime.bounds import Bounds, Layer, bound


def layers(model: nn.Module, x: torch.Tensor, mode: Mode = Mode.W8A8) -> list[Layer]:
    """Convolutions and linear layers of ``model`` in the order in which they run on ``x``, as ``mode`` stores them.

    Products of two activations are left out, as everything that no module does: bounds stay below what is possible.
    """
    act, stored = STORED_BITS[mode.activation], STORED_BITS[mode.weight]
    found: list[Layer] = []

    def see(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            n, k = weight.shape[0], weight[0].numel()
            m = output.numel() // n
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
            found.append(
                Layer(
                    name,
                    m * k * n,
                    m,
                    k,
                    n,
                    inputs[0].numel() * act // 8,
                    output.numel() * act // 8,
                    weight.numel() * stored // 8,
                    depthwise,
                    mode,
                )
            )

        return hook

    handles = [
        module.register_forward_hook(see(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def network_bounds(model: nn.Module, x: torch.Tensor, machine: Machine, mode: Mode = Mode.W8A8) -> Bounds:
    """Bounds of ``model`` on ``x``: weights once as stored, input and output as the binary32 that the caller sees."""
    with torch.no_grad():
        output = model(x)
    outputs = (output,) if isinstance(output, torch.Tensor) else output
    return bound(layers(model, x, mode), machine, 4 * x.numel(), sum(4 * each.numel() for each in outputs))
