"""Every operator that moves values gives PyTorch's elements, on codes and on constants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)
from torch.nn import functional

from compiler.dialects import qnn
from compiler.frontend.export import import_graph
from compiler.interpreter.qnn import run_qnn
from isa.errors import UnsupportedError

Q = torch.ops.quantized_decomposed

CASES = {
    "slice": lambda x: x[:, 1:3],
    "slice with a step": lambda x: x[..., 1::2],
    "slice from the end": lambda x: x[:, :, -2:],
    "select": lambda x: x[:, -1],
    "narrow": lambda x: x.narrow(2, 1, 2),
    "split": lambda x: x.split(3, 1)[1],
    "split with sizes": lambda x: x.split([1, 2, 1], 1)[1],
    "chunk": lambda x: x.chunk(2, 3)[1],
    "unbind": lambda x: x.unbind(2)[1],
    "expand": lambda x: x[:, :1].expand(-1, 5, -1, -1),
    "expand to a higher rank": lambda x: x[0, 0, 0].expand(2, 3, 6),
    "expand as": lambda x: x[:, :1].expand_as(x),
    "repeat": lambda x: x[0, 0].repeat(2, 3, 2),
    "tile": lambda x: x.tile((2, 2)),
    "repeat interleave": lambda x: x.repeat_interleave(2, 3),
    "transpose": lambda x: x.transpose(1, -1),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "movedim": lambda x: x.movedim(1, -1),
    "movedim of several": lambda x: x.movedim((0, 3), (2, 1)),
    "flatten": lambda x: x.flatten(1, 2),
    "unflatten": lambda x: x.unflatten(3, (2, -1)),
    "view as": lambda x: x.view_as(x.reshape(2, 12, 4)),
    "squeeze": lambda x: x[:1].squeeze(0),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "stack": lambda x: torch.stack([x[:, 0], x[:, 1]], -1),
    "cat": lambda x: torch.cat([x[:, 2:], x], 1),
    "roll": lambda x: x.roll((1, -2), (2, 3)),
    "roll of all": lambda x: x.roll(5),
    "pixel shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: functional.pixel_unshuffle(x[:, :, :2], 2),
    "channel shuffle": lambda x: functional.channel_shuffle(x, 2),
    "unfold of tiles": lambda x: functional.unfold(x[:, :, :2], 2, stride=2),
    "unfold of windows": lambda x: functional.unfold(x, (2, 3), padding=(1, 0), dilation=(1, 2), stride=(2, 1)),
    "fold": lambda x: functional.fold(x.reshape(1, 16, 6), (4, 6), 2, stride=2),
    "slices along a dimension": lambda x: x.unfold(3, 4, 1),
    "tiles along a dimension": lambda x: x.unfold(3, 2, 2),
}


class Quantized(torch.nn.Module):
    def __init__(self, move) -> None:
        super().__init__()
        self.move = move

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = Q.quantize_per_tensor(x, 0.05, -3, -128, 127, torch.int8)
        y = Q.dequantize_per_tensor(y, 0.05, -3, -128, 127, torch.int8)
        return self.move(y)


class Held(torch.nn.Module):
    def __init__(self, move) -> None:
        super().__init__()
        self.move = move
        self.register_buffer("held", torch.arange(96.0).reshape(CASE_SHAPE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.move(self.held) + x


CASE_SHAPE = (1, 4, 4, 6)


def built(module: torch.nn.Module, x: torch.Tensor):
    return import_graph(torch.export.export(module.eval(), (x,)))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_codes_move(name: str):
    model, x = Quantized(CASES[name]), torch.randn(CASE_SHAPE, generator=torch.Generator().manual_seed(3))
    module = built(model, x)
    (actual,) = run_qnn(module, [x.numpy()])
    assert np.array_equal(actual, model(x).numpy())
    (dequantize,) = [op for op in module.walk() if isinstance(op, qnn.DequantizeOp)]
    assert [use.operation.name for use in dequantize.output.uses] == ["func.return"]


@pytest.mark.parametrize("name", CASES)
def test_constants_fold(name: str):
    model, x = Held(CASES[name]), torch.ones(1)
    module = built(model, x)
    (actual,) = run_qnn(module, [x.numpy()])
    assert np.array_equal(actual, model(x).numpy())
    moves = (qnn.ReshapeOp, qnn.PermuteOp, qnn.SliceOp, qnn.ExpandOp, qnn.ConcatOp, qnn.PadOp)
    assert not [op for op in module.walk() if isinstance(op, moves) and "padding" not in op.properties]


def test_a_reversed_tensor_is_refused():
    with pytest.raises(UnsupportedError, match="a tensor cannot be reversed"):
        built(Quantized(lambda x: x.flip(2)), torch.ones(CASE_SHAPE))


def test_overlapping_windows_are_not_folded():
    with pytest.raises(UnsupportedError, match="fold of windows that overlap"):
        built(Quantized(lambda x: functional.fold(x.reshape(1, 16, 6), (3, 4), 2)), torch.ones(CASE_SHAPE))


def test_an_empty_slice_is_refused():
    with pytest.raises(UnsupportedError, match=r"dimension 1 of \[1, 4, 4, 6\] would be empty"):
        built(Quantized(lambda x: x[:, 4:]), torch.ones(CASE_SHAPE))
