"""Every way in gives the same bits: a saved program, torchao's own quantizers, several inputs, validation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from torch.nn import functional
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

import quartic
from benchmarks.zoo import NETWORKS
from quartic.models import load_program, save_program
from tests.bits import assert_same
from tests.e2e.support import assert_bits, network, probes, quantized

SMALL = ("digits", "plain", "odd", "one_pixel", "gates", "pools", "products")


def by_torchao(model: nn.Module, x: torch.Tensor, quantizer: str) -> GraphModule:
    """``model`` quantized without Quartic's quantizer or its export."""
    if quantizer == "xnnpack":
        chosen = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    else:
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86  # imports all of Inductor

        chosen = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    graph = torch.export.export(model, (x,)).module()
    assert isinstance(graph, GraphModule)
    prepared = prepare_pt2e(graph, chosen)
    prepared(x)
    return convert_pt2e(prepared)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "quantizer"), [("digits", "x86"), ("resnet18", "xnnpack")])
def test_graph_that_torchaos_quantizers_made(name: str, quantizer: str) -> None:
    row = NETWORKS[name]
    x = row.images(shape=row.small)
    q = by_torchao(row.model(shape=row.small), x, quantizer)
    assert_bits(q, probes(tuple(x.shape))[:3])


def test_product_that_another_quantizer_left_in_float_is_named() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.cumsum(self.conv(x), 3))

    q = quantized(Mixed().eval(), (1, 3, 8, 8))
    with pytest.raises(quartic.QuarticError, match=r"aten.cumsum.default \(node cumsum, module Mixed, .*:\d+\)"):
        quartic.compile(q)


class Averaged(nn.Module):
    """A classifier that averages an image as MobileNet v2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to [N, 5]."""
        return self.linear(functional.relu6(self.conv(x)).mean([2, 3]))


@pytest.mark.slow
def test_mean_that_another_quantizer_left_in_float_is_computed() -> None:
    x = torch.randn(1, 3, 8, 8)
    q = by_torchao(Averaged().eval(), x, "x86")
    assert_same(quartic.simulate(quartic.compile(q), x).outputs, quartic.reference(q)(x))


@pytest.mark.slow
def test_program_saved_and_loaded_gives_the_same_program(tmp_path: Path) -> None:
    q, shape = network("gates")
    save_program(q, (torch.zeros(shape),), tmp_path / "q.pt2")
    loaded = load_program(tmp_path / "q.pt2")
    first, second = quartic.compile(q).binary, quartic.compile(loaded).binary
    assert first.constants == second.constants
    assert first.code == second.code


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("name", SMALL)
def test_every_level_of_the_compiler_computes_the_same(name: str, machine: str) -> None:
    q, _ = network(name)
    quartic.compile(q, machine, validate=True)


@pytest.mark.slow
def test_every_level_of_a_residual_network_computes_the_same() -> None:
    q, _ = network("resnet_v2_nano")
    quartic.compile(q, validate=True)


class TwoInputs(nn.Module):
    """Two inputs, two outputs, and one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(5, 8, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, 8, H, W] and its mean [N, 8]."""
        z = torch.relu(self.left(x) + self.right(y))
        return z, z.mean([2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
def test_two_inputs_and_two_outputs(machine: str) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 3, 7, 5), torch.randn(2, 5, 7, 5))
    q = quartic.quantize(TwoInputs().eval(), inputs, [inputs])
    run = quartic.simulate(quartic.compile(q, machine), *inputs)
    assert len(run.outputs) == 2
    assert_same(run.outputs, quartic.reference(q)(*inputs))


def test_unsupported_operators_are_reported_all_at_once_with_module_and_line() -> None:
    class Strange(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.up = nn.ConvTranspose2d(4, 4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(self.up(torch.sinh(self.first(x)))).real

    q = quantized(Strange().eval(), (1, 3, 8, 8))
    with pytest.raises(quartic.QuarticError) as caught:
        quartic.compile(q)
    message = str(caught.value)
    assert "sinh" in message
    assert "fft" in message
    assert "test_entrances.py:" in message


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("noise", [torch.float64, torch.int8, torch.float16])
def test_input_of_another_type_is_refused(noise: torch.dtype) -> None:
    q, shape = network("digits")
    with pytest.raises(quartic.QuarticError, match="float32"):
        quartic.simulate(quartic.compile(q), torch.zeros(shape, dtype=noise))
