"""Models and data as a user names them: ``file.py:function``, ``package.module:function``, ``.pt2``, ``.npy``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from isa.container import MAGIC
from isa.errors import InputError
from isa.files import replacing
from quartic.files import existing, read_text

ARRAYS = "a .npy or .npz array file"

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn
    from torch.fx import GraphModule

    from compiler.ir.schedule import Schedule


def _intact(path: Path) -> None:
    """Raise ValueError where this is another kind of file, or a part is not what was written.

    torch reads past checksums.
    """
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) == MAGIC:
            raise ValueError("it is a compiled binary: `quartic run` and `quartic dis` read it")
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/data.pkl") for name in archive.namelist()):
            raise ValueError("torch.save wrote it: build the model in a function, and give file.py:function")
        if (part := archive.testzip()) is not None:
            raise ValueError(f"{part.partition('/')[2] or part} is damaged: its checksum does not match")


def load_program(path: Path) -> torch.export.ExportedProgram:
    """The ``torch.export`` program in ``path``. Raises InputError."""
    existing(path, "a .pt2 that torch.export.save wrote")
    import torch

    # Registers the quantize and dequantize ops; without it a quantized program does not load.
    import torch.ao.quantization.fx._decomposed

    import quantizer.codebook  # noqa: F401

    # torch would log the traceback of what becomes our one message.
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        _intact(path)
        return torch.export.load(path)
    except Exception as error:
        # A damaged archive surfaces as nearly any exception type; the file is at fault in all of them.
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a torch.export program ({reason}); write it with "
            f"torch.export.save under torch {torch.__version__}"
        ) from error
    finally:
        log.setLevel(level)


def _failure(error: BaseException) -> str:
    """What the user's own code raised, and on which line."""
    frames = traceback.extract_tb(error.__traceback__)
    reason = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {reason} ({frames[-1].filename}:{frames[-1].lineno})"


def _module(source: str) -> ModuleType:
    if not source.endswith(".py"):
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            raise InputError(f"module {source!r} cannot be imported: {error}") from error
    path = existing(Path(source), "a Python file that defines the model")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    # The model's own imports of its neighbours work as if it were run as a script.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{path}:{error.lineno}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: importing it failed with {_failure(error)}") from error
    finally:
        sys.path.pop(0)
    return module


def load_model(source: str) -> nn.Module:
    """The model that ``source`` names: a .pt2, a module, or a function without arguments that builds one.

    Raises InputError.
    """
    from torch import nn

    if source.endswith(".pt2"):
        return load_program(Path(source)).module()
    file, colon, name = source.rpartition(":")
    if not colon or not file:
        raise InputError(f"{source!r} names no model: give model.pt2, file.py:function or package.module:function")
    build = getattr(_module(file), name, None)
    if isinstance(build, nn.Module):
        return build.eval()
    if not callable(build):
        raise InputError(f"{file} has no function {name!r} that builds a model")
    try:
        model = build()
    except (Exception, SystemExit) as error:
        raise InputError(f"{source}: building the model failed with {_failure(error)}") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"{source} returned {type(model).__name__}; it must return a torch.nn.Module")
    return model.eval()


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Contiguous and in this machine's byte order; the shape stays, that of a scalar too."""
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def load_arrays(path: Path, names: Sequence[str] = ()) -> tuple[torch.Tensor, ...]:
    """One tensor per model input: from a .npy one, from a .npz its arrays, of ``names`` if it has these, or in order.

    Raises InputError.
    """
    import numpy as np
    import torch

    existing(path, ARRAYS)
    with path.open("rb") as stream:
        if not stream.read(8).startswith((b"\x93NUMPY", b"PK")):
            raise InputError(f"{path}: not a .npy or .npz file; write it with numpy.save or numpy.savez")
    try:
        # Opened here: numpy leaves its own handle open where an archive is damaged.
        with path.open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            found: list[str] = getattr(loaded, "files", [])
            order = _order(path, found, names)
            arrays = [loaded[name] for name in order] if hasattr(loaded, "files") else [loaded]
        return tuple(torch.from_numpy(_native(array)) for array in arrays)
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise InputError(f"{path}: not a readable .npy or .npz of numbers ({error})") from error
    except Exception as error:
        # A damaged zip raises zipfile or zlib errors of several kinds.
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def _order(path: Path, found: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """The arrays ``found`` in the order of ``names``, or in theirs if they have other names. Raises InputError."""
    known = [name for name in names if name in found]
    if known and len(known) < len(found):
        others = ", ".join(repr(name) for name in found if name not in known)
        raise InputError(f"{path}: {others}: no input of the model ({', '.join(names)}); name all arrays so, or none")
    return known or found


def load_with_samples(source: str, calibration: Path) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """The model that ``source`` names, and arrays for its inputs as ``load_arrays`` gives them. Raises InputError."""
    existing(calibration, ARRAYS)  # said before a model is built, which may take long
    model = load_model(source)
    return model, load_arrays(calibration, tuple(inspect.signature(model.forward).parameters))


def count_samples(arrays: Sequence[torch.Tensor], path: Path) -> int:
    """How many samples every array of ``path`` holds, along its first dimension. Raises InputError if they differ."""
    counts = [len(array) if array.ndim else 0 for array in arrays]
    if len(set(counts)) > 1:
        raise InputError(
            f"{path}: its arrays hold {', '.join(map(str, counts))} samples; give as many for every input, [count, ...]"
        )
    return counts[0] if counts else 0


def load_schedule(schedule: Schedule | str | Path) -> Schedule:
    """The schedule in a TOML file, or the value itself. Raises InputError or ScheduleError."""
    from compiler.ir.schedule import Schedule

    if isinstance(schedule, Schedule):
        return schedule
    try:
        path = Path(schedule)
    except TypeError:
        raise InputError(
            f"a schedule is the path of a TOML file, or what Executable.schedule gives, not {type(schedule).__name__}"
        ) from None
    return Schedule.from_toml(read_text(path, "a schedule written by --emit-schedule"), str(schedule))


def quantized_graph(q: GraphModule | torch.export.ExportedProgram | str | Path) -> GraphModule:
    """The FX graph behind what ``quartic.compile`` takes. Raises InputError."""
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    if isinstance(q, str | Path):
        q = load_program(Path(q))
    if isinstance(q, ExportedProgram):
        q = q.module()
    if not isinstance(q, GraphModule):
        raise InputError(f"compile takes a quantized torch.fx.GraphModule, not {type(q).__name__}; quantize first")
    return q


def save_program(q: nn.Module, example_inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """Write the quantized graph as a ``.pt2``, whole or not at all."""
    import torch

    program = torch.export.export(q, example_inputs)
    with replacing(path) as temporary:
        torch.export.save(program, temporary)


def save_arrays(path: Path, names: list[str], tensors: tuple[torch.Tensor, ...]) -> None:
    """Write the only tensor as ``.npy``, or all of them, by name, as ``.npz``. Raises InputError."""
    import numpy as np

    if path.suffix not in (".npy", ".npz"):
        raise InputError(f"{path}: outputs are written as .npy or .npz; give the name that ending")
    if path.suffix == ".npy" and len(tensors) != 1:
        raise InputError(f"{path}: a .npy holds one array and there are {len(tensors)} outputs; name it .npz")
    with replacing(path) as temporary, temporary.open("wb") as stream:
        if path.suffix == ".npy":
            np.save(stream, tensors[0].numpy())
        else:
            arrays = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
            np.savez(stream, allow_pickle=False, **arrays)
