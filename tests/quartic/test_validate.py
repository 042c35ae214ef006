"""``validate=True`` also runs the binary."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx import GraphModule
from xdsl.dialects.builtin import ModuleOp

import quartic
from compiler import pipeline
from compiler.dialects.attrs import IntsAttr
from compiler.dialects.qnn import Conv2dOp
from isa.errors import ValidationError
from tests.quartic.test_cli import outcome


@pytest.fixture(scope="module")
def quantized() -> GraphModule:
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(1, 3, 8, 8, generator=generator),) for _ in range(2)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5))
    return quartic.quantize(model.eval(), batches[0], batches)


def test_a_sound_binary_passes(quantized: GraphModule) -> None:
    exe = quartic.compile(quantized, "tiny", validate=True)
    assert exe.timings["validate"] > 0
    assert exe.binary == quartic.compile(quantized, "tiny").binary


def test_a_binary_with_other_weights_is_refused(quantized: GraphModule, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pipeline.emit

    def broken(*arguments: object) -> object:
        binary = honest(*arguments)
        return replace(binary, constants=bytes(len(binary.constants)))

    monkeypatch.setattr(pipeline, "emit", broken)
    with pytest.raises(ValidationError, match=r"^the binary on the simulator: output '.*' differs on random inputs: "):
        quartic.compile(quantized, "tiny", validate=True)


@pytest.mark.slow
def test_command_line(quantized: GraphModule, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    model = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(quantized, (torch.zeros(1, 3, 8, 8),)), model)
    arguments = ["compile", str(model), "-o", str(tmp_path / "model.qbin"), "--machine", "tiny", "--validate"]
    assert outcome(*arguments) == 0
    honest = pipeline.materialize_copies

    def broken(module: ModuleOp, sram_bytes: int | None) -> None:
        honest(module, sram_bytes)
        convolution = next(op for op in module.walk() if isinstance(op, Conv2dOp))
        convolution.padding = IntsAttr((2, 1, 0, 1))

    monkeypatch.setattr(pipeline, "materialize_copies", broken)
    assert outcome(*arguments) != 0
    assert "pass materialize-copies: " in capsys.readouterr().err
