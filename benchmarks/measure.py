"""Measure one network: ``python -m benchmarks.measure resnet50`` prints one JSON object.

Wall times are medians of several rounds in this process, so that their ratios hold on a busy machine. Peak memory is
that of a second process, which only loads the quantized graph, compiles and runs it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from quartic.executable import Executable

SEED = 0
PARTS = 20
"""Modules that a row lists."""
ROOT = Path(__file__).parent.parent
PACKAGES = ("isa", "quantizer", "compiler", "runtime", "benchmarks/zoo")
"""Folders of the code that decides what a network's simulation gives."""


def sources(packages: Iterable[str]) -> str:
    """Digest of the code below folders of the repository, on which rows that are kept depend."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def median_seconds(works: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Median wall time of each of ``works`` over ``repeat`` rounds, after one that warms up.

    Every round runs all of them, so that another load on the machine disturbs all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeat + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def peak_memory(program: Path, machine: str, shape: tuple[int, ...]) -> int:
    """Bytes of resident memory at the peak of a process that compiles and runs ``program`` once."""
    request = json.dumps({"program": str(program), "machine": machine, "shape": shape})
    command = [sys.executable, "-m", "benchmarks.measure", "--memory", request]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def _compile_and_run(request: dict[str, Any]) -> int:
    import torch

    import quartic
    from quartic.models import load_program

    exe = quartic.compile(load_program(Path(request["program"])).module(), request["machine"])
    _ = quartic.simulate(exe, torch.zeros(request["shape"])).profile
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def kept(model: nn.Module) -> int:
    """Parameters that stay binary32: of embeddings, norms and scales; a batch norm's are in its convolution."""
    from torch import nn

    packed = nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d
    others = (module for module in model.modules() if not isinstance(module, packed))
    return sum(value.numel() for module in others for value in module.parameters(recurse=False))


def compared(
    model: nn.Module, q: nn.Module, reference: nn.Module, exe: Executable, x: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """What is timed side by side. Reading the profile is what simulates time and energy."""
    import quartic
    from isa.container import Binary

    data = exe.binary.to_bytes()
    return {
        "float": lambda: model(x),
        "qdq": lambda: q(x),
        "reference": lambda: reference(x),
        "first": lambda: quartic.simulate(quartic.Executable(Binary.from_bytes(data)), x).profile,
        "simulate": lambda: quartic.simulate(exe, x).profile,
        "timing only": lambda: quartic.timing(exe).profile,
    }


def measure(name: str, machine: str, repeat: int, recipe: str = "w8a8") -> dict[str, Any]:
    """Everything that the tables show of one network."""
    import torch

    import quartic
    from benchmarks.bounds import network_bounds
    from benchmarks.parts import parts
    from benchmarks.probes import same_bits
    from benchmarks.zoo import NETWORKS
    from benchmarks.zoo.layers import work
    from isa.instructions import STORED_BITS, Mode
    from quartic.models import save_program
    from quartic.results import summary

    network = NETWORKS[name]
    model, x = network.model(SEED), network.images(1, SEED)
    quantized = time.perf_counter()
    q = quartic.quantize(model, (x,), [(network.images(1, seed),) for seed in (1, 2)], recipe=recipe)
    quantized = time.perf_counter() - quantized
    executables = [quartic.compile(q, machine) for _ in range(repeat + 1)][1:]
    exe = executables[0]
    stages = {key: statistics.median(one.timings[key] for one in executables) for key in exe.timings}
    run = quartic.simulate(exe, x)
    reference = quartic.reference(q)
    with torch.no_grad():
        exact = same_bits(reference(x), run.outputs)
        walls = median_seconds(compared(model, q, reference, exe, x), repeat)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "model.pt2"
        save_program(q, (x,), program)
        memory = peak_memory(program, machine, tuple(x.shape))
    counted = work(model, tuple(x.shape))
    packed = counted.packed(STORED_BITS[Mode[recipe.upper()].weight])
    binary = exe.binary
    found = network_bounds(q, binary.machine)
    clock = binary.machine.clock_hz
    return {
        "network": name,
        "machine": machine,
        "recipe": recipe,
        "params": counted.params,
        "macs": counted.macs,
        "packed bytes": packed,
        "least DRAM bytes": packed + 4 * (kept(model) + sum(each.numel() for each in (x, *run.outputs))),
        "exact": exact,
        "quantize seconds": quantized,
        "compile seconds": sum(stages.values()),
        "stages": stages,
        "instructions": exe.instructions,
        "code bytes": len(binary.code),
        "constant bytes": len(binary.constants),
        "binary bytes": len(binary.to_bytes()),
        "walls": walls,
        "peak bytes": memory,
        "bound seconds": found.cycles / clock,
        "bounds": {
            "MAC": found.mac_cycles / clock,
            "array": found.array_cycles / clock,
            "DRAM": found.dram_cycles / clock,
            "array and DRAM": found.machine_cycles / clock,
            "layer by layer": found.layerwise_cycles / clock,
        },
        "bound joules": found.energy_fj * 1e-15,
        "parts": [asdict(part) for part in parts(run.profile, 3, PARTS)],
        **summary(run.profile),
    }


def main() -> None:
    """Print the measurements of the network that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?")
    parser.add_argument("--machine", default="edge28")
    parser.add_argument("--recipe", default="w8a8")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--memory", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if options.memory:
        print(_compile_and_run(options.memory))
    else:
        print(json.dumps(measure(options.network, options.machine, options.repeat, options.recipe)))


if __name__ == "__main__":
    main()
