"""Which of PyTorch's operators compile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from compiler.frontend.aten import OPERATORS
from quantizer.definitions import DEFINITIONS
from quantizer.rewrite import RULES

INTRODUCTION = """
Names are of `torch.ops.aten`, behind the methods and functions of a model. `quartic check` says which of a model's
operators are refused, for their operator or for what they ask of it. What PyTorch gives as int64 is int32 where it is a
position (`argmax`), and binary32 where it is a count or a constant (`(x > 0).sum(1)`).
"""


def operators() -> Iterator[str]:
    """What the compiler takes, and what only the quantizer can say in that."""
    taken = set(_names(OPERATORS))
    said = set(_names(map(str, [*DEFINITIONS, *RULES]))) - taken
    yield INTRODUCTION
    yield f"The compiler takes, in a graph of any quantizer: {_listed(taken)}."
    yield (
        f"`quartic.quantize` and `quartic.export` say in these: {_listed(said)}, and what PyTorch defines by operators "
        "of both lists, as `einsum`, `mish` or `glu`."
    )


def _names(targets: Iterable[str]) -> Iterator[str]:
    """Of ``aten.relu_.default``: relu, as its form in place has no name of its own; internal names are left out."""
    for target in targets:
        package, name = target.split(".")[:2]
        if package == "aten" and not name.startswith("_"):
            yield name.removesuffix("_")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
