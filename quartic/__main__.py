"""``python -m quartic`` is the command ``quartic``, for a shell whose path lacks it."""

from quartic.cli import main

main()
