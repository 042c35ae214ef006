"""What the networks share: a convolution with batch norm and activation, seeding, and counting of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Pair = int | tuple[int, int]


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the epsilon of TensorFlow's networks."""
    return nn.BatchNorm2d(channels, eps=1e-3)


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and an activation unless ``act`` is None.

    ``padding`` None keeps the size of an odd kernel at stride 1.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Pair = 1,
        stride: Pair = 1,
        padding: Pair | None = None,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        if padding is None:
            sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
            padding = ((sides[0] - 1) // 2, (sides[1] - 1) // 2)
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        if act is not None:
            layers.append(act())
        super().__init__(*layers)


@dataclass(frozen=True)
class Work:
    """Parameters, and multiply-accumulates of convolutions, linear layers and products for one forward pass."""

    params: int
    macs: int
    weights: int
    """Of convolutions and linear layers; their ``channels`` are all output channels."""
    channels: int

    def packed(self, bits: int) -> int:
        """Bytes of the weights as codes of ``bits`` bits, and of a binary32 scale and bias per output channel."""
        return self.weights * bits // 8 + 8 * self.channels


def randomise(model: nn.Module, shape: tuple[int, ...], seed: int = 0, batches: int = 2) -> nn.Module:
    """Give ``model`` random weights under which inputs of ``shape`` (N, ...) keep their signal; eval mode.

    With its default statistics a random network loses its signal: the output becomes its bias, and any
    quantization error measured on it is fake. So the running mean and variance are the cumulative averages
    over ``batches`` random batches, as training would leave them, and the affine parameters are spread.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        norms: list[nn.BatchNorm2d] = []
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.6, 1.4)
                nn.init.normal_(module.bias, 0.0, 0.2)
                norms.append(module)
        model.eval()
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = None
        for _ in range(batches if norms else 0):
            model(torch.randn(max(shape[0], 4), *shape[1:]))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()


def work(model: nn.Module, shape: tuple[int, ...]) -> Work:
    """Count what a forward pass of an input of ``shape`` takes, on the meta device: no data is touched."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    weights = sum(layer.weight.numel() for layer in layers)
    channels = sum(layer.weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0] for layer in layers)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        torch.func.functional_call(model, meta, (torch.empty(shape, device="meta"),))
    params = sum(parameter.numel() for parameter in model.parameters())
    return Work(params, counter.get_total_flops() // 2, weights, channels)
