"""Exceptions of a pass that nobody foresaw, in the user's terms: which pass, at which operation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from traceback import walk_tb

from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import DiagnosticException

from compiler.ir.location import where
from isa.errors import QuarticError, UnsupportedError

ADVICE = "write it with other operators or leave it out of the model, and report this: it is a defect of Quartic"


@contextmanager
def naming(step: str) -> Generator[None]:
    """Exceptions from inside, but for QuarticErrors, become an UnsupportedError that names ``step`` and an operation.

    The operation is the innermost that the stack of the exception holds, so that no pass has to say where it is.
    """
    try:
        yield
    except QuarticError:
        raise
    except Exception as error:
        cause = _cause(error)
        if isinstance(cause, QuarticError):
            raise cause from cause.__cause__
        at = f" at {where(op)}" if (op := _operation(cause)) else ""
        said = str(cause).partition("\n")[0]
        raise UnsupportedError(f"pass {step} failed{at} with {type(cause).__name__}: {said}; {ADVICE}") from cause


def _cause(error: Exception) -> Exception:
    """What went wrong inside a rewrite pattern, which xDSL reports as an exception of its own."""
    while isinstance(error, DiagnosticException) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _operation(error: Exception) -> Operation | None:
    """The innermost operation that a frame of the stack was at and that comes from a node of the model."""
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            owner = value.owner if isinstance(value, SSAValue) else getattr(value, "op", value)
            if isinstance(owner, Operation) and where(owner):
                return owner
    return None
