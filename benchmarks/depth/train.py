"""Train a depth network on generated scenes: ``python -m benchmarks.depth.train [--model unet] [--fresh]``.

Scenes, order, flips and swapped colours follow from the seed and the number of the step. The rate rises, stays and
falls to zero as a cosine, so a run that was cut off goes on from ``build/depth/<model>.pt`` with
``--resume``. The checkpoint that is kept is the best on validation scenes, which are not the test scenes.

The repository's checkpoint: a short first training (commit 3230925; AbsRel 0.1267, delta1 0.881 on 64 test scenes of
today's generator), then from there ``--steps 1875 --scenes 6000`` with seed 0 on one core (AMD EPYC, AVX2): 2 minutes
of scenes and 18 of steps, in three pieces with ``--resume``. Validation AbsRel was 0.139 before, 0.163 at step 750,
0.132 at 1000, 0.127 at 1250, 0.125 at 1750 and 0.1234 (delta1 0.916) at the last one, which was kept. The test scenes
are in benchmarks/results/depth.md. Started again from here, the command trains further and does not repeat this run.

The U-Net's: ``--model unet --fresh --rate 2e-3``, stopped after step 500 (validation AbsRel 0.1125, delta1 0.932), then
``--model unet --resume --steps 1000 --rate 2e-3``: 0.0966 at step 750 and 0.0910 (delta1 0.965) at the last one, which
was kept; 9 minutes of one core besides the scenes. The test scenes are in benchmarks/results/quartdepth.md.

The small Metric3D's: ``--model metric3d --fresh --steps 600 --scenes 2000 --rate 2e-3``; validation AbsRel 0.210 at
step 500, 0.206 (delta1 0.781) at the last one, 5 minutes of one core. It is for measuring noise, not for depth.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import CHECKPOINTS, NETWORKS, trained
from benchmarks.depth.scenes import VALIDATION, Scenes

STATES = Path("build/depth")
RATE, WARM, STAYS, EVERY = 8e-4, 200, 0.4, 250


def loss_of(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Absolute error of the logarithm, and of its differences between neighbours."""
    error = predicted.log() - truth.log()
    across = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return functional.l1_loss(predicted.log(), truth.log()) + across


def rate_of(step: int, steps: int, most: float = RATE) -> float:
    """Learning rate: a linear rise over WARM steps, a plateau up to STAYS of all, a cosine to zero over the rest."""
    fall = max(0.0, (step / steps - STAYS) / (1 - STAYS))
    return most * min(1.0, (step + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * fall))


def pool(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and depths of scenes in half precision: 6000 of them in 0.6 GB."""
    generator = Scenes()
    pairs = [generator.scene(seed) for seed in range(first, first + count)]
    images, depths = (torch.stack([torch.from_numpy(pair[i]).half() for pair in pairs]) for i in (0, 1))
    return images, depths


def batch_of(
    images: torch.Tensor, depths: torch.Tensor, count: int, seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scenes of one step, mirrored every other time, their colour channels in any order."""
    dice = torch.Generator().manual_seed(seed * 1_000_003 + step)
    pick = torch.randint(len(images), (count,), generator=dice)
    x, y = images[pick].float(), depths[pick].float()
    x = x[:, torch.randperm(3, generator=dice)]
    return (x.flip(-1), y.flip(-1)) if step % 2 else (x, y)


def validated(model: nn.Module, images: torch.Tensor, truth: torch.Tensor) -> Metrics:
    """Metrics in eval mode on images and depths in half precision; the model is in training mode before and after."""
    model.eval()
    with torch.no_grad():
        found = Metrics.of(model(images.float()), truth.float())
    model.train()
    return found


@dataclass(frozen=True)
class Plan:
    """What a training depends on besides the weights that it starts from."""

    model: str = "vit"
    steps: int = 1875
    seed: int = 0
    scenes: int = 6000
    batch: int = 16
    rate: float = RATE


def train(model: nn.Module, plan: Plan, resume: bool) -> None:
    """Run the steps; writes the state every EVERY of them, and the checkpoint whenever validation improves."""
    torch.set_num_threads(1)
    start, first, kept, steps = time.process_time(), 0, STATES / f"{plan.model}.pt", plan.steps
    images, depths = pool(0, plan.scenes)
    held, truth = pool(VALIDATION, 64)
    print(f"{plan.scenes} scenes: {time.process_time() - start:.0f} s of one core", flush=True)
    best = validated(model, held, truth).abs_rel
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.rate, weight_decay=0.02)
    if resume:
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, best = state["step"], min(best, state["best"])
    for step in range(first, steps):
        for group in optimiser.param_groups:
            group["lr"] = rate_of(step, steps, plan.rate)
        x, y = batch_of(images, depths, plan.batch, plan.seed, step)
        loss = loss_of(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            found = validated(model, held, truth)
            spent = time.process_time() - start
            print(f"step {step + 1}: {spent:.0f} s, loss {float(loss.detach()):.4f}, {found.short()}", flush=True)
            if found.abs_rel < best:
                best = found.abs_rel
                _save(halved(model), CHECKPOINTS[plan.model])
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1, "best": best}
            _save(state, kept)


def halved(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of ``model`` with its floats in half precision."""
    return {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}


def _save(state: Mapping[str, object], path: Path) -> None:
    """Written to a temporary name and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for row in fields(Plan):
        names = NETWORKS if row.name == "model" else None
        parser.add_argument(f"--{row.name}", type=type(row.default), default=row.default, choices=names)
    parser.add_argument("--fresh", action="store_true", help="start from random weights, not from the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the state of a run that was cut off")
    options = vars(parser.parse_args())
    fresh, resumed = options.pop("fresh"), options.pop("resume")
    plan = Plan(**options)
    torch.manual_seed(plan.seed)
    train(NETWORKS[plan.model]() if fresh else trained(plan.model), plan, resumed)
