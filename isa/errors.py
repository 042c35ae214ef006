"""Every error that a user can cause; all derive from :class:`QuarticError`."""

from __future__ import annotations


class QuarticError(Exception):
    """Base of every error that a user of Quartic can cause.

    Its text is all that it carries: where (module path, FX node, source line, file or field), which rule with the
    actual and the allowed value, and what to do.
    """


class EncodingError(QuarticError, ValueError):
    """A field value does not fit its bits, or a 128-bit word is not an instruction.

    Says the mnemonic, field and legal values, or the byte offset and number of the instruction.
    """


class AssemblyError(QuarticError, ValueError):
    """Assembly text that is not a program.

    Says the line, mnemonic and field, and the nearest known name.
    """


class ContainerError(QuarticError, ValueError):
    """A ``.qbin`` file that is malformed, damaged or made for another machine.

    Says the file, the section, and the value that it must have.
    """


class DescriptionError(QuarticError, ValueError):
    """A machine, energy table or recipe that breaks its schema.

    Says the file, table and key, the value and the rule, and of an unknown key the nearest.
    """


class UnsupportedError(QuarticError):
    """A model asks for something that the machine or compiler cannot do as asked.

    Lists every refused operator with its FX node, module path, source line, rule (``rule:``) and advice (``do:``).
    """


class ScheduleError(QuarticError, ValueError):
    """A schedule that is not legal for its kernel and machine.

    Says the file, the kernel and key, the value and the rule.
    """


class AssignmentError(QuarticError, ValueError):
    """A budget that no assignment of widths keeps, or a sensitivity of another model.

    Says what the cheapest assignment takes, or the layer that is lacking.
    """


class ValidationError(QuarticError):
    """A level of the compiler computes other bits than the model: a defect to report.

    Says the pass, the output, and the first operation that differs, with its place in the model.
    """


class QuantizationError(QuarticError, ValueError):
    """A model, calibration set or recipe that cannot be quantized as asked.

    Says the node, module path and source line, the parameter, batch or stage, the rule and what to do.
    """


class InputError(QuarticError, ValueError):
    """Inputs whose number, shape or type is not the executable's, or a file that is missing or of another kind.

    Says the input's name, what it is and what it must be, or the path.
    """


class SimulationError(QuarticError):
    """A program broke a rule of the machine while running.

    Says the instruction, the layer and the source line that it comes from.
    """


class AccessError(SimulationError):
    """An access that is out of range or misaligned, or a write to what is read-only.

    Says the instruction, the space, the bytes, and where the space ends or what they must be a multiple of.
    """


class UninitialisedError(SimulationError):
    """A read of bytes that nothing wrote, or an output that is not stored whole.

    Says the instruction or output, the space and the first such address.
    """


class RaceError(SimulationError):
    """Two accesses to one byte, one a write, that no semaphore orders.

    Says both instructions with their source lines, the space and the bytes.
    """


class DeadlockError(SimulationError):
    """Engines that wait for signals which can never come.

    Says the instruction that waits, its semaphore, and what every engine waits for.
    """


class SemaphoreError(SimulationError):
    """A semaphore overflowed, or is shared by more than one pair of engines.

    Says the instruction, the semaphore, and what the machine allows.
    """
