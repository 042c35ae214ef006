"""``make demo``: the whole path on the digits CNN, in seconds."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from quartic import Executable


def main() -> None:
    """Quantize, compile, disassemble a few lines, simulate; one table at the end."""
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import torch

    import quartic
    from benchmarks.digits import accuracy, dataset
    from benchmarks.zoo.digits import trained
    from quartic.cli.console import table
    from quartic.results import summary

    batch = 8
    model = trained()
    train_images, _, images, labels = dataset()
    print(f"quantize  {sum(p.numel() for p in model.parameters()):,} parameters, calibrated on 64 images")
    q = quartic.quantize(model, (images[:batch],), [(part,) for part in train_images[:64].split(batch)])

    exe = quartic.compile(q, machine="edge28")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.qbin"
        exe.save(path)
        size = path.stat().st_size
        exe = quartic.load(path)
    print(f"compile   {exe.instructions:,} instructions, {size:,} bytes, for {exe.machine}")
    print("\nthe first instructions of the first convolution")
    print("\n".join("  " + line for line in _first_convolution(exe)))

    reference = quartic.reference(q)
    batches = images.split(batch)
    runs = [quartic.simulate(exe, part) for part in batches]
    expected = [reference(part)[0] for part in batches]
    simulated = [run.outputs[0] for run in runs]
    equal = all(map(torch.equal, expected, simulated))
    with torch.no_grad():
        floats = accuracy(model(images), labels)
    found = summary(runs[0].profile)
    print()
    table(
        f"Digits CNN, batch {batch}, on {exe.machine}",
        ["", ""],
        [
            ["accuracy, float", f"{floats:.2%}"],
            ["accuracy, quantized (PyTorch)", f"{accuracy(torch.cat(expected), labels):.2%}"],
            ["accuracy, simulated chip", f"{accuracy(torch.cat(simulated), labels):.2%}"],
            [f"bits equal on {len(images)} images", "yes" if equal else "NO"],
            ["cycles", f"{found['cycles']:,}"],
            ["microseconds", f"{found['seconds'] * 1e6:.1f}"],
            ["utilization of the matrix unit", f"{found['utilization']:.1%}"],
            *([f"energy, {name}", f"{joules * 1e6:.3f} uJ"] for name, joules in found["joules"].items()),
        ],
    )
    if not equal:
        raise SystemExit("the simulated bits differ from the reference's")


def _first_convolution(exe: Executable, count: int = 6) -> list[str]:
    """The first ``count`` instructions of the second kernel (the first quantizes the input), under the layer's name."""
    from isa.assembler import disassemble

    binary = exe.binary
    kernels = [binary.locations[index].kernel for _, index in binary.spans]
    first = next(kernel for kernel in kernels if kernel)
    position = 0
    for length, index in binary.spans:
        place = binary.locations[index]
        if place.kernel not in ("", first):
            lines = disassemble(binary.instructions[position : position + count]).splitlines()
            return [f"; {place.node} | {place.module} | {place.source}", *lines]
        position += length
    return []


if __name__ == "__main__":
    main()
