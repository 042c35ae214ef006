"""``quartic opt``: run any passes on ``.mlir`` text. xDSL's driver with our dialects, passes and a table of times."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass, PassPipeline
from xdsl.printer import Printer
from xdsl.utils.exceptions import DiagnosticException, ParseError
from xdsl.xdsl_opt_main import xDSLOptMain

from compiler.universe import UNIVERSE
from isa.errors import InputError, QuarticError
from isa.files import write_atomically


class _Held(io.StringIO):
    """Text that is still there when the driver has closed it."""

    def close(self) -> None:
        pass


def _write(path: Path, text: str) -> None:
    """Whole or not at all; what is no file, as a pipe, takes the text as it comes."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    write_atomically(path, text)


Frontend = Callable[[IO[bytes]], ModuleOp]
"""What reads an opened file of some ending as a module."""


class QuarticOpt(xDSLOptMain):
    """The driver; ``QuarticOpt(args=[...]).run()`` reads a file or stdin and writes stdout.

    ``frontends`` read files that are no text, by their endings.
    """

    version_format = "quartic opt (xdsl {xdsl_version})"

    def __init__(
        self,
        description: str = "Run compiler passes on .mlir text",
        args: Sequence[str] | None = None,
        frontends: Mapping[str, Frontend] | None = None,
    ) -> None:
        self.frontends = dict(frontends or {})
        super().__init__(description, args)

    def register_all_frontends(self) -> None:
        """MLIR text, and what was given."""
        super().register_all_frontends()
        self.available_frontends |= self.frontends

    def register_all_dialects(self) -> None:
        """xDSL's dialects and ours, also where the package is not installed and has no entry point."""
        super().register_all_dialects()
        known = {dialect for dialect in self.ctx.registered_dialect_names}
        for name, factory in UNIVERSE.all_dialects.items():
            if name not in known:
                self.ctx.register_dialect(name, factory)

    def register_all_passes(self) -> None:
        """xDSL's passes and ours."""
        super().register_all_passes()
        self.available_passes |= UNIVERSE.all_passes

    def register_all_targets(self) -> None:
        """xDSL's targets and ours."""
        super().register_all_targets()
        self.available_targets |= UNIVERSE.all_targets

    def setup_pipeline(self) -> None:
        """Verify and print between passes, and keep the seconds of each."""
        self.seconds: list[tuple[str, float]] = []
        self._started = time.perf_counter()
        self.pipeline = PassPipeline.parse_spec(self.available_passes, self.args.passes, self._between)

    def _between(self, previous: ModulePass | None, module: ModuleOp, following: ModulePass | None) -> None:
        if previous is not None:
            self.seconds.append((previous.name, time.perf_counter() - self._started))
        if not self.args.disable_verify:
            module.verify()
        if previous and following and self.args.print_between_passes:
            print(f"// after {previous.name}")
            Printer(sys.stdout, print_debuginfo=self.args.print_debuginfo).print_op(module)
            print("\n")
        self._started = time.perf_counter()

    def prepare_output(self) -> IO[str]:
        """Where the text goes: a file is written when all of it is there, since xDSL would empty it first."""
        self.held = _Held()
        return sys.stdout if self.args.output_file is None else self.held

    def run(self) -> None:
        """Read, transform, write; with ``--time-passes``, a table on stderr."""
        output = None if self.args.output_file is None else Path(self.args.output_file)
        if output is not None and not output.parent.is_dir():
            raise InputError(f"{output}: its folder does not exist; create {output.parent} first")
        super().run()
        if output is not None:
            _write(output, self.held.getvalue())
        if self.args.time_passes:
            print(time_table(self.seconds), file=sys.stderr)


def time_table(seconds: Sequence[tuple[str, float]]) -> str:
    """Passes in order with their seconds and share, and the total."""
    total = sum(value for _, value in seconds)
    width = max([len("total"), *(len(name) for name, _ in seconds)])
    rows = [f"{name:<{width}} {value:9.4f} s {value / total:6.1%}" for name, value in seconds]
    return "\n".join([*rows, f"{'total':<{width}} {total:9.4f} s"])


def main(args: Sequence[str] | None = None, frontends: Mapping[str, Frontend] | None = None) -> int:
    """Run the driver; errors in the input are printed, not raised: 2. 0 on success."""
    try:
        QuarticOpt(args=args, frontends=frontends).run()
    except (QuarticError, DiagnosticException, ParseError, ValueError, OSError) as error:
        where = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
        print(f"quartic: error: {where}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
