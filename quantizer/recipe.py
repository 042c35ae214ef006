"""Recipes: how a model is to be quantized, as data. Files of them are read and written by ``quantizer.recipe_file``.

Whatever a later step needs to know (polishing, reconstruction, training) is a stage: a frozen dataclass in that
step's own file, with a default for every field, which a recipe holds under the name of its table in ``STAGES``; None,
the default, is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from isa.errors import DescriptionError
from quantizer.fold import Fold
from quantizer.log2 import Log2
from quantizer.polish import Polish
from quantizer.ranges import Estimator, MinMax
from quantizer.reconstruct.options import Compensate, Round
from quantizer.rules import OneOf, check
from quantizer.smooth import Smooth
from quantizer.train.options import Train

FLOAT = 32
"""Bits of what stays binary32."""
WIDTHS = (4, 8, 16, FLOAT)
CHANNEL, TENSOR = "channel", "tensor"
FIRST, LAST, EMBEDDING = "first", "last", "embedding"
LAYERS = (FIRST, LAST, EMBEDDING)

STAGES: dict[str, type[Any]] = {
    "smooth": Smooth,
    "fold": Fold,
    "polish": Polish,
    "log2": Log2,
    "compensate": Compensate,
    "round": Round,
    "train": Train,
}
"""The stages in the order in which they run: the table's name in a recipe, which is its field too, and the schema."""


BITS = OneOf(WIDTHS, "(binary32)")
PER = OneOf((CHANNEL, TENSOR))


@dataclass(frozen=True)
class Change:
    """What differs in how a tensor is quantized; None leaves a field as it is. Raises DescriptionError."""

    bits: Annotated[int | None, BITS] = None
    """Width of the codes."""
    symmetric: bool | None = None
    """Whether 0 is the middle code, with no zero point."""
    per: Annotated[str | None, PER] = None
    """A scale for each output channel of a weight, or channel of what a layer reads, or one for the tensor."""
    range: Estimator | None = None
    """How the range is found; it is changed whole, parameters included."""

    def __post_init__(self) -> None:
        check(self)

    def __str__(self) -> str:
        said = ((row.name, getattr(self, row.name)) for row in fields(self))
        return ", ".join(f"{name} {getattr(value, 'by', value)}" for name, value in said if value is not None)


@dataclass(frozen=True)
class Format:
    """How tensors of one role are quantized: width, codes with a zero point or without, granularity, range.

    Raises DescriptionError.
    """

    bits: Annotated[int, BITS]
    """Width of the codes; 32 stays binary32, and the rest says nothing."""
    symmetric: bool
    """Whether 0 is the middle code, with no zero point (arXiv 1806.08342, section 2.2), and the lowest code of weights
    left out, so that each has its negative; else codes are affine, with a zero point (section 2.1)."""
    per: Annotated[str, PER]
    """"channel": a scale for each output channel of a weight, or, folded into the weights, channel of what a layer
    reads; "tensor": one for all (arXiv 1806.08342, section 3)."""
    range: Estimator
    """How the range that the codes span is found."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def is_float(self) -> bool:
        """Whether it stays binary32."""
        return self.bits == FLOAT

    def changed(self, *changes: Change | None) -> Format:
        """A format with ``changes`` applied one after the other; None changes nothing."""
        said = {
            row.name: value
            for change in changes
            if change is not None
            for row in fields(change)
            if (value := getattr(change, row.name)) is not None
        }
        return dataclasses.replace(self, **said)


@dataclass(frozen=True)
class Override:
    """What differs in some modules, named by one of ``modules`` and ``layer``. Raises DescriptionError."""

    modules: str = ""
    """Pattern (``fnmatch``) of the paths of modules; what is inside of a module that matches counts."""
    layer: Annotated[str, OneOf(LAYERS, unset="")] = ""
    """Convolutions and linear layers with none before them ("first"), none behind ("last"), on any way through the
    graph, or whose path holds "embed" ("embedding")."""
    why: str = ""
    """Said in the report."""
    weight: Change | None = None
    """What differs in weights."""
    activation: Change | None = None
    """What differs in operands of convolutions, linear layers and products."""
    elementwise: Change | None = None
    """What differs in operands of elementwise operators, pools, reductions and interpolation. Where it is binary32,
    windows of pools read codes as wide as ``activation``, of 8 bits at least."""
    wide: Change | None = None
    """What differs in what norms and softmax read."""

    def __post_init__(self) -> None:
        check(self)
        if bool(self.modules) == bool(self.layer):
            raise DescriptionError("an override names either modules, by a pattern, or a layer: give one of the two")
        if not self.changes:
            raise DescriptionError(f"{self.title}: changes nothing; say how, as weight = {{ bits = 8 }}")

    @property
    def title(self) -> str:
        """What it applies to, in words."""
        return f"modules {self.modules!r}" if self.modules else f"layer {self.layer!r}"

    @property
    def changes(self) -> dict[str, Change]:
        """What it changes, by role."""
        found = {role: getattr(self, role) for role in ROLES}
        return {role: change for role, change in found.items() if change is not None}


@dataclass(frozen=True)
class Roles:
    """The formats of one operator's tensors."""

    weight: Format
    activation: Format
    elementwise: Format
    wide: Format

    def __post_init__(self) -> None:
        """Raises DescriptionError for what no machine or estimator can do."""
        weight = self.weight
        if weight.per == CHANNEL and not weight.range.per_channel:
            raise DescriptionError(
                f"weight: the range by {weight.range.by!r} needs more values than a channel has: "
                f"say per = {TENSOR!r}, or take another estimator"
            )
        if weight.range.of_batches:
            raise DescriptionError(
                f"weight: the range by {weight.range.by!r} is of batches, and weights are constant: say 'minmax'"
            )
        if isinstance(weight.range, MinMax) and weight.range.headroom:
            raise DescriptionError(
                "weight: headroom is for values that calibration did not see, and weights are constant: leave it out"
            )
        for role in ("elementwise", "wide"):
            if getattr(self, role).per == CHANNEL:
                raise DescriptionError(
                    f"{role}: per = {CHANNEL!r} is for weights, and for what layers with weights read, which take the "
                    f"scales: say per = {TENSOR!r}"
                )


ROLES = tuple(row.name for row in fields(Roles))


@dataclass(frozen=True)
class Recipe:
    """How a model is quantized: formats of tensors by role, exceptions, and stages. Raises DescriptionError."""

    name: str
    """For reports."""
    weight: Format
    """Weights of convolutions, transposed ones and linear layers."""
    activation: Format
    """What convolutions, linear layers and products read: of attention queries, keys, values and probabilities."""
    elementwise: Change = Change()
    """Operands that elementwise operators, pools, reductions and interpolation read from memory: as ``activation``, per
    tensor, but for this. Where it is binary32, windows of pools read codes as wide as ``activation``, of 8 bits at
    least."""
    wide: Change = Change()
    """Inputs of norms, the residual sums that feed one, and scores that a softmax reads from memory: as ``activation``,
    per tensor, but for this."""
    overrides: tuple[Override, ...] = ()
    """Exceptions by module; of those that set the same field the last one wins."""
    description: str = ""
    """For listings."""
    smooth: Smooth | None = None
    """Channels brought closer to each other: SmoothQuant."""
    fold: Fold | None = None
    """Channels brought to one range: scales per channel of activations."""
    polish: Polish | None = None
    """Codes that are dense where values are: QuartDepth's LogNP."""
    log2: Log2 | None = None
    """Probabilities in powers of two."""
    compensate: Compensate | None = None
    """Weights that make up for quantized inputs."""
    round: Round | None = None
    """Rounding that is learned, or goes column by column."""
    train: Train | None = None
    """Fine-tuning with simulated quantization."""

    def __post_init__(self) -> None:
        check(self, {name: kind | None for name, kind in STAGES.items()})
        self.roles()
        for override in self.overrides:
            try:
                self.roles([override])
            except DescriptionError as error:
                raise DescriptionError(f"override of {override.title}: {error}") from None
        if self.train is not None and (chosen := [name for name in ("compensate", "round") if getattr(self, name)]):
            raise DescriptionError(f"[train] finds weights of its own: leave out [{chosen[0]}], or [train]")
        if self.stages and self.is_float:
            first = next(iter(self.stages))
            raise DescriptionError(f"[{first}]: the recipe quantizes nothing; leave the stage out, or give formats")

    def roles(self, overrides: Iterable[Override] = ()) -> Roles:
        """The formats where all of ``overrides`` apply, in order."""
        applied = list(overrides)
        activation = self.activation.changed(*(o.activation for o in applied))
        whole = activation.changed(Change(per=TENSOR))
        return Roles(
            self.weight.changed(*(o.weight for o in applied)),
            activation,
            whole.changed(self.elementwise, *(o.elementwise for o in applied)),
            whole.changed(self.wide, *(o.wide for o in applied)),
        )

    @property
    def stages(self) -> dict[str, Any]:
        """The stages that are on, by name, in the order in which they run."""
        return {name: stage for name in STAGES if (stage := getattr(self, name)) is not None}

    @property
    def is_float(self) -> bool:
        """Whether nothing at all is quantized: the binary32 baseline."""
        formats = [self.roles([o] if o else ()) for o in (None, *self.overrides)]
        return all(getattr(each, role).is_float for each in formats for role in ROLES)

    @property
    def compiles(self) -> bool:
        """Whether the machine has such products: of codes on both sides, or of binary32 in a graph without any."""
        roles = self.roles()
        return self.is_float or not (roles.weight.is_float or roles.activation.is_float)

    @property
    def title(self) -> str:
        """Its name, and whether it says something else than the preset of that name."""
        known = self.name in self.presets()
        return f"{self.name}, changed" if known and self != Recipe.load(self.name) else self.name

    def with_overrides(self, *overrides: Override) -> Recipe:
        """This recipe with more ``overrides`` behind its own."""
        return dataclasses.replace(self, overrides=(*self.overrides, *overrides))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A preset by name, or a recipe from a TOML file. Raises QuantizationError or DescriptionError.

        * ``name_or_path``: as of ``quartic.recipe``.
        """
        from quantizer.recipe_file import load

        return load(name_or_path)

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """Names of the presets, sorted."""
        from quantizer.recipe_file import presets

        return presets()

    def to_toml(self) -> str:
        """The whole recipe, without a base: what ``load`` reads back as an equal one."""
        from quantizer.recipe_file import write

        return write(self)
