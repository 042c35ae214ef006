"""``make demo``: an image goes into the simulated chip, a depth map comes out; milliseconds and millijoules of it."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from quartic import Executable

if TYPE_CHECKING:
    from benchmarks.depth.picture import Picture
    from runtime.profile import Profile

PICTURE = Path("build/demo.png")
PARTS = 12
"""Modules that the table lists; the others become one row."""


def main() -> None:
    """Quantize, compile, disassemble a few lines, simulate a frame; a table, a profile and a picture at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="w8a8", help="w8a8, w4a8, w4a4, w8a16 or w16a16")
    parser.add_argument("--machine", default="edge28")
    parser.add_argument("--scene", type=int, default=0, help="which held-out scene")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    import torch

    import quartic
    from benchmarks.depth.evaluate import CALIBRATION, FAR, NEAR, compiled, float_depth, held_out
    from benchmarks.depth.metrics import Metrics
    from benchmarks.depth.model import trained
    from benchmarks.depth.picture import coloured, photograph, sheet, write_png

    model = trained()
    images, truths = held_out(options.scene + 1)
    image, truth = images[-1:], truths[-1:]
    print(f"quantize  {sum(p.numel() for p in model.parameters()):,} parameters to {options.recipe}, ", end="")
    print(f"calibrated on {CALIBRATION} scenes", flush=True)
    q, exe = compiled(model, options.recipe, options.machine)
    size = len(exe.binary.to_bytes())
    print(f"compile   {exe.instructions:,} instructions, {size:,} bytes, for {exe.machine}")
    print("\nthe first instructions of the first convolution")
    print("\n".join("  " + line for line in _first_convolution(exe)))

    run = quartic.simulate(exe, image)
    (expected,), (depth,) = quartic.reference(q)(image), run.outputs
    equal = torch.equal(expected, depth)
    floats = float_depth(model, image)
    _print_figures(exe, run.profile, equal, [Metrics.of(each, truth).short() for each in (floats, expected, depth)])
    _print_modules(run.profile)

    parts = [photograph(image[0].numpy())]
    parts += [coloured(each[0, 0].numpy(), NEAR, FAR) for each in (truth, floats, depth)]
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    write_png(options.picture, sheet(("input", "exact", "float", options.recipe), [parts]))
    _show(parts)
    print(f"\nimage, exact depth, float, simulated chip: {options.picture}")
    if not equal:
        raise SystemExit("the simulated bits differ from the reference's")


def _print_figures(exe: Executable, profile: Profile, equal: bool, errors: list[str]) -> None:
    from quartic.cli.console import table
    from quartic.results import summary

    found = summary(profile)
    energies = dict(found["joules"])
    total = energies.pop("total")
    print()
    table(
        f"One frame on {exe.machine}",
        ["", ""],
        [
            *zip(("float", "quantized (PyTorch)", "simulated chip"), errors, strict=True),
            ["bits equal", "yes" if equal else "NO"],
            ["latency", f"{found['seconds'] * 1e3:.3f} ms ({found['cycles']:,} cycles)"],
            ["utilization of the matrix unit", f"{found['utilization']:.1%}"],
            ["energy", f"{total * 1e3:.3f} mJ"],
            *([f"  {name}", f"{each * 1e6:.1f} uJ, {each / total:.0%}"] for name, each in energies.items()),
        ],
    )


def _print_modules(profile: Profile) -> None:
    """Where the frame's cycles and energy went, by the first three names of the module's path."""
    from benchmarks.parts import HEAD, parts
    from runtime.profile import format_table

    print("\n" + format_table(HEAD, [part.cells(profile.cycles) for part in parts(profile, 3, PARTS)]))


def _show(parts: list[Picture]) -> None:
    """The four pictures side by side, coarsely, where a person looks at a terminal that can show colours."""
    from rich.console import Console

    from benchmarks.depth.picture import beside, half_blocks

    console = Console()
    if console.is_terminal and console.color_system in ("256", "truecolor"):
        console.print()
        console.print(half_blocks(beside(parts), min(console.width, 120)), end="")


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
