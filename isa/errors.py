"""Every error that a user can cause; all derive from :class:`QuarticError`."""

from __future__ import annotations


class QuarticError(Exception):
    """Base of every error that a user of Quartic can cause."""


class EncodingError(QuarticError, ValueError):
    """A field value does not fit its bits, or a 128-bit word is not an instruction."""


class AssemblyError(QuarticError, ValueError):
    """Assembly text that is not a program; carries the line."""


class ContainerError(QuarticError, ValueError):
    """A ``.qbin`` file that is malformed, damaged or made for another machine."""


class DescriptionError(QuarticError, ValueError):
    """A machine, energy table or recipe that breaks its schema; names the file and key."""


class UnsupportedError(QuarticError):
    """A model asks for something that the machine or compiler cannot do as asked."""


class ScheduleError(QuarticError, ValueError):
    """A schedule that is not legal for its kernel and machine."""


class AssignmentError(QuarticError, ValueError):
    """A budget that no assignment of widths keeps; says what the cheapest takes."""


class ValidationError(QuarticError):
    """A level of the compiler computes other bits than the model; names the pass and the first operation."""


class QuantizationError(QuarticError, ValueError):
    """A model or calibration set that cannot be quantized as asked."""


class InputError(QuarticError, ValueError):
    """Inputs whose number, shape or type is not the executable's."""


class SimulationError(QuarticError):
    """A program broke a rule of the machine while running."""


class AccessError(SimulationError):
    """Out-of-range or misaligned access."""


class UninitialisedError(SimulationError):
    """A read of bytes that nothing wrote."""


class RaceError(SimulationError):
    """Two accesses to one byte, one a write, that no semaphore orders."""


class DeadlockError(SimulationError):
    """Engines that wait for signals which can never come."""


class SemaphoreError(SimulationError):
    """A semaphore overflowed, or is shared by more than one pair of engines."""
