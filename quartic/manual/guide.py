"""Where the guide is about a thing; a test follows every link."""

from __future__ import annotations

FIRST, DEPTH = "guide/01-first-model.md", "guide/02-depth-and-transformers.md"
RECIPES, WIDTHS = "guide/03-choosing-a-recipe.md", "tutorials/choosing-widths.md"

CHAPTERS = {
    "quartic.quantize": f"{FIRST}#quantize",
    "quartic.reference": f"{FIRST}#quantize",
    "quartic.compile": f"{FIRST}#compile",
    "quartic.load": f"{FIRST}#run",
    "quartic.simulate": f"{FIRST}#run",
    "quartic.timing": f"{FIRST}#run",
    "quartic.export": f"{FIRST}#with-another-quantizer",
    "quartic.recipe": f"{RECIPES}#a-recipe-of-your-own",
    "quartic.prepare_qat": f"{RECIPES}#training",
    "quartic.train": f"{RECIPES}#training",
    "quartic.convert": f"{RECIPES}#training",
    "quartic.sensitivity": f"{WIDTHS}#sensitivity",
    "quartic.assign": f"{WIDTHS}#cost-and-the-choice",
    "quantizer.report": f"{RECIPES}#what-became-of-the-model",
    "Profile": f"{DEPTH}#the-profile-by-mode",
    "presets": f"{RECIPES}#presets",
    "override": f"{RECIPES}#a-recipe-of-your-own",
    "smooth": f"{RECIPES}#channels-that-differ",
    "fold": f"{RECIPES}#channels-that-differ",
    "polish": f"{RECIPES}#channels-that-differ",
    "log2": f"{RECIPES}#channels-that-differ",
    "compensate": f"{RECIPES}#weights-that-fit-their-layer",
    "round": f"{RECIPES}#weights-that-fit-their-layer",
    "train": f"{RECIPES}#training",
    "range": f"{RECIPES}#ranges",
    "command line": f"{FIRST}#the-same-from-the-shell",
}


def guide(name: str) -> str:
    """A line that leads to the guide; "" of what it has nothing about."""
    if name not in CHAPTERS:
        return ""
    title = CHAPTERS[name].partition("#")[2].replace("-", " ")
    return f"In the guide: [{title}]({CHAPTERS[name]}).\n"
