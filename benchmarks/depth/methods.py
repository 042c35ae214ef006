"""The methods of QuartDepth's Table 1 (arXiv 2503.16709) as recipes: one base per width, and what each method adds.

All share the formats of the base, so that methods are compared and not formats: weights with a symmetric scale per
output channel, activations with a zero point per tensor, 8 bits where an elementwise operator reads from memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress, product

from quantizer import Recipe
from quantizer.recipe_file import read

WIDTHS = ("w4a8", "w4a4")
WEIGHTS = "w4a32"
"""The base of what quantizes weights alone."""
ITERATIONS, RATE = 150, 0.03
"""Steps of Adam per layer or block, and how far one goes at most; the paper takes 20,000, its code's ancestor 0.001."""
GRID = '[activation]\nrange = { by = "mse", bins = 512, steps = 50 }\n'
"""The search for ranges of those that learn to round; that of QDrop, the paper's code's ancestor, is of power 2.4."""
LEARNED = f'{GRID}[round]\nmethod = "adaround"\niterations = {ITERATIONS}\nrate = {RATE}\n'
PARTS = {"LogNP": "[polish]\n", "compensation": "[compensate]\n"}
"""What QuartDepth adds to learned rounding, besides Kronecker factors; LogNP of the whole decoder, as it is printed."""
BY_ERROR = '[polish]\nwhere = "error"\n'
"""LogNP of those layers of the decoder alone whose output gets nearer to the float one's by it."""
KFAC = "KFAC"
FACTORS = (*PARTS, KFAC)
"""What the ablation turns on and off."""


def _quartdepth(parts: Iterable[str], more: str = "") -> str:
    """Learned rounding of a layer's own weight, weighed by Kronecker factors or equally, and ``parts`` of PARTS."""
    given = set(parts)
    stages = "".join(text for part, text in PARTS.items() if part in given) + more
    metric = "kfac" if KFAC in given else "mse"
    return f'{LEARNED}scope = "layer"\nmetric = "{metric}"\ntarget = "weight"\n{stages}'


def with_parts(parts: Iterable[str]) -> str:
    """The name of the method that takes these of FACTORS."""
    wanted = set(parts)
    given = [part for part in FACTORS if part in wanted]
    return "printed" if len(given) == len(FACTORS) else " + ".join(["rounding", *given])


ABLATION = {
    with_parts(parts): parts
    for flags in product((False, True), repeat=len(FACTORS))
    for parts in [tuple(compress(FACTORS, flags))]
}
"""Every subset of FACTORS by the name of its method; none of them is learned rounding, all of them QuartDepth."""
CURVES = {"with compensation": with_parts(("compensation", KFAC)), "without": with_parts((KFAC,))}
"""The lines of Fig. 8, which are of the ablation."""

METHODS = {
    "minmax": '[activation]\nrange = { by = "minmax" }\n',
    "ema": '[activation]\nrange = { by = "average" }\n',
    "percentile": '[activation]\nrange = { by = "percentile", percent = 99.9 }\n',
    "mse": GRID,
    "adaround": LEARNED + 'scope = "layer"\nmetric = "mse"\n',
    "brecq": LEARNED + 'scope = "block"\nmetric = "fisher"\n',
    "obs": '[round]\nmethod = "gptq"\n',
    "ours": _quartdepth(("compensation", KFAC), BY_ERROR),
    **{name: _quartdepth(parts) for name, parts in ABLATION.items()},
}
"""What a method adds to its base, as TOML."""
TABLE1 = ("obs", "minmax", "ema", "percentile", "mse", "adaround", "brecq", "printed", "ours")
"""Methods of Table 1, in the paper's order; the range search by itself is not in it, nor LogNP by need."""
TABLE2 = ("obs", "adaround", "brecq", "ours")


def base(method: str, width: str) -> str:
    """The preset below ``method`` at ``width``."""
    return WEIGHTS if method == "obs" else width


def recipe(method: str, width: str) -> Recipe:
    """The recipe of a method at a width. Raises KeyError for an unknown method."""
    return read(f'base = "{base(method, width)}"\nname = "{width}-{method}"\n{METHODS[method]}', f"{width}-{method}")
