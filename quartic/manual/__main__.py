"""Write the page to the file that is named, or to standard output."""

import sys
from pathlib import Path

from quartic.cli import quiet

quiet()

from quartic.manual.page import manual  # noqa: E402 - torchao logs when it is imported

if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(manual())
else:
    sys.stdout.write(manual())
