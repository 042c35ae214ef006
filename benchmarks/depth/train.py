"""Train the depth model on generated scenes: ``python -m benchmarks.depth.train [--minutes 15] [--seed 0]``."""

from __future__ import annotations

import argparse
import math
import os
import time

import torch
from torch.nn import functional

from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import CHECKPOINT, DepthNet
from benchmarks.depth.scenes import Scenes

VALIDATION = 1_000_000
"""First seed of the scenes that are never trained on."""


def loss_of(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Absolute error of the logarithm, and of its differences between neighbours."""
    error = predicted.log() - truth.log()
    across = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return functional.l1_loss(predicted.log(), truth.log()) + across


def train(minutes: float, seed: int, scenes: int, batch: int) -> DepthNet:
    """Train for a time; the checkpoint is written whenever validation improves."""
    torch.manual_seed(seed)
    generator = Scenes()
    images, depths = (torch.from_numpy(a) for a in generator.batch(0, scenes))
    held, truth = (torch.from_numpy(a) for a in generator.batch(VALIDATION, 32))
    model = DepthNet()
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-4, weight_decay=0.02)
    start, best, step = time.monotonic(), float("inf"), 0
    while (spent := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = 6e-4 * min(1.0, (step + 1) / 100) * max(0.02, 0.5 * (1 + math.cos(math.pi * spent)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        pick = torch.randint(scenes, (batch,))
        x, y = images[pick], depths[pick]
        if step % 2:
            x, y = x.flip(-1), y.flip(-1)
        loss = loss_of(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 200 == 0:
            with torch.no_grad():
                found = Metrics.of(model(held), truth)
            quality = f"AbsRel {found.abs_rel:.4f}, delta1 {found.delta1:.4f}"
            print(f"step {step}: loss {float(loss):.4f}, {quality}", flush=True)
            if found.abs_rel < best:
                best = found.abs_rel
                _save(model)
    return model.eval()


def _save(model: DepthNet) -> None:
    """Half precision, written to a temporary name and renamed."""
    temporary = CHECKPOINT.with_suffix(".tmp")
    torch.save({name: value.half() for name, value in model.state_dict().items()}, temporary)
    os.replace(temporary, CHECKPOINT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    train(options.minutes, options.seed, options.scenes, options.batch)
