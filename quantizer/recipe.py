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
from typing import Any

from isa.errors import DescriptionError
from quantizer.fold import Fold
from quantizer.log2 import Log2
from quantizer.polish import Polish
from quantizer.ranges import Estimator
from quantizer.reconstruct.options import Compensate, Round
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


@dataclass(frozen=True)
class Change:
    """What differs in how a tensor is quantized; None leaves a field as it is. A range is changed whole."""

    bits: int | None = None
    symmetric: bool | None = None
    per: str | None = None
    range: Estimator | None = None

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits not in WIDTHS:
            raise DescriptionError(f"bits = {self.bits}: must be one of {', '.join(map(str, WIDTHS))} (binary32)")
        if self.per is not None and self.per not in (CHANNEL, TENSOR):
            raise DescriptionError(f"per = {self.per!r}: must be {CHANNEL!r} or {TENSOR!r}")

    def __str__(self) -> str:
        said = ((row.name, getattr(self, row.name)) for row in fields(self))
        return ", ".join(f"{name} {getattr(value, 'by', value)}" for name, value in said if value is not None)


@dataclass(frozen=True)
class Format:
    """How tensors of one role are quantized: width, codes with a zero point or without, granularity, range."""

    bits: int
    symmetric: bool
    per: str
    range: Estimator

    def __post_init__(self) -> None:
        Change(self.bits, self.symmetric, self.per, self.range)  # the same rules

    @property
    def is_float(self) -> bool:
        """Whether it stays binary32."""
        return self.bits == FLOAT

    def changed(self, *changes: Change | None) -> Format:
        """With ``changes`` applied one after the other."""
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
    """What differs in some modules: all whose path, or that of a module around them, matches the pattern ``modules``
    (``fnmatch``), or the role ``layer``: the first or last layers, or embeddings. ``why`` is for the report."""

    modules: str = ""
    layer: str = ""
    why: str = ""
    weight: Change | None = None
    activation: Change | None = None
    elementwise: Change | None = None
    wide: Change | None = None

    def __post_init__(self) -> None:
        if bool(self.modules) == bool(self.layer):
            raise DescriptionError("an override names either modules, by a pattern, or a layer: give one of the two")
        if self.layer and self.layer not in LAYERS:
            raise DescriptionError(f"layer = {self.layer!r}: must be one of {', '.join(map(repr, LAYERS))}")
        if not self.changes:
            raise DescriptionError(f"{self.title}: changes nothing; say how, as weight = {{ bits = 8 }}")

    @property
    def title(self) -> str:
        """What it applies to, in words."""
        return f"modules {self.modules!r}" if self.modules else f"layer {self.layer!r}"

    @property
    def changes(self) -> dict[str, Change]:
        """Changes by role."""
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
        for role in ("elementwise", "wide"):
            if getattr(self, role).per == CHANNEL:
                raise DescriptionError(
                    f"{role}: per = {CHANNEL!r} is for weights, and for what layers with weights read, which take the "
                    f"scales: say per = {TENSOR!r}"
                )


ROLES = tuple(row.name for row in fields(Roles))


@dataclass(frozen=True)
class Recipe:
    """How a model is quantized: ``weight`` and ``activation`` of convolutions and products, and where others differ.

    ``elementwise`` are operands that elementwise operators, pools and interpolation read from memory, ``wide`` inputs
    of norms and the residual tensors that feed one; both are as ``activation`` but for their change. Of ``overrides``
    that set the same field the last one wins. Raises DescriptionError for what cannot be.
    """

    name: str
    weight: Format
    activation: Format
    elementwise: Change = Change()
    wide: Change = Change()
    overrides: tuple[Override, ...] = ()
    description: str = ""
    smooth: Smooth | None = None
    fold: Fold | None = None
    polish: Polish | None = None
    log2: Log2 | None = None
    compensate: Compensate | None = None
    round: Round | None = None
    train: Train | None = None

    def __post_init__(self) -> None:
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
        """This recipe with more overrides behind its own."""
        return dataclasses.replace(self, overrides=(*self.overrides, *overrides))

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A preset by name, or a recipe from a TOML file. Raises QuantizationError or DescriptionError."""
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
