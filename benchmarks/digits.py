"""Train the digits CNN: ``python -m benchmarks.digits`` rewrites its checkpoint and prints test accuracy."""

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.zoo.digits import CHECKPOINT, DigitsNet

SEED = 0
EPOCHS = 30
BATCH = 64
TEST_IMAGES = 360


def dataset() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images [1437, 1, 8, 8] in 0..1 and labels, then 360 of each for testing; a fixed split."""
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    images = torch.tensor(data, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return images[train], labels[train], images[test], labels[test]


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of rows of ``logits`` [N, 10] whose largest entry is the label."""
    return (logits.argmax(1) == labels).float().mean().item()


def train(seed: int = SEED) -> DigitsNet:
    """Train from scratch; seconds on one CPU core."""
    images, labels, _, _ = dataset()
    torch.manual_seed(seed)
    model = DigitsNet().train()
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))[: len(images) // BATCH * BATCH]
        for batch in order.split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main() -> None:
    """Train, save, report."""
    model = train()
    torch.save(model.state_dict(), CHECKPOINT)
    _, _, images, labels = dataset()
    with torch.no_grad():
        print(f"test accuracy {accuracy(model(images), labels):.4f}, {CHECKPOINT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
