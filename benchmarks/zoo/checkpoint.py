"""Published weights into a network: every key must fit, and what does not is said by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from isa.errors import InputError

Model = TypeVar("Model", bound=nn.Module)
Key = TypeVar("Key", str, int)
SHOWN = 5
"""Keys of each kind that a message names."""


def load(
    model: Model,
    path: str | Path,
    rename: Callable[[str], str] = lambda key: key,
    optional: Mapping[str, torch.Tensor] | None = None,
) -> Model:
    """``model`` in eval mode with the weights in ``path``: a state dict as ``torch.save`` writes it, or one within.

    ``rename`` gives the network's name of a key; ``optional`` are the values of keys that may be absent. Raises
    InputError naming the file, and the keys that are missing, unexpected or of another shape.
    """
    found = {rename(key): value for key, value in _read(Path(path)).items()}
    weights = {**(optional or {}), **found}
    wanted = model.state_dict()
    if problems := [*_problems(wanted, weights)]:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{path}: does not fit {type(model).__name__}; is it of another size or version?\n{lines}")
    model.load_state_dict(weights)
    return model.eval()


def checked(name: Key, known: Collection[Key], what: str = "size") -> Key:
    """``name`` itself; raises InputError with the known ones where it is none of them."""
    if name not in known:
        raise InputError(f"unknown {what} {name!r}: must be one of {', '.join(map(str, known))}")
    return name


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a checkpoint that torch.save wrote")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged archive or foreign pickle surfaces as nearly any exception type; the file is at fault in all.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: cannot be read as a checkpoint ({reason}); expected one of torch.save") from error
    for name in ("model_state_dict", "state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        what = f"a dict of {sorted(map(str, found))[:SHOWN]}" if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{path}: holds {what}: must be a state dict, names to tensors")
    return found


def _problems(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> list[str]:
    shapes = [
        f"{key} has shape {list(found[key].shape)}, not {list(value.shape)}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    missing = [key for key in wanted if key not in found]
    unexpected = [key for key in found if key not in wanted]
    return [
        f"{len(each)} {what}: {', '.join(each[:SHOWN])}{', ...' * (len(each) > SHOWN)}"
        for what, each in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if each
    ]
