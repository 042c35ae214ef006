"""Where an FX node comes from: module path and line of PyTorch source."""

from __future__ import annotations

import re
from pathlib import PurePath

from torch.fx import Node

FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def module_path(node: Node) -> str:
    """Dotted path of the innermost module that made ``node``; empty for the root or where export left none."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L['self']")


def source_line(node: Node) -> str:
    """``file.py:12`` of the innermost frame that export recorded; empty where there is none."""
    frames = [f for f in FRAME.findall(node.meta.get("stack_trace") or "") if not f[0].startswith("<eval_with_key>")]
    return f"{PurePath(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


def describe(node: Node, at: Node | None = None) -> str:
    """One line for messages: node, target, module path and source line; these two of ``at`` where it is given."""
    target = str(node.target).removesuffix(".default")
    where = ", ".join(part for part in (module_path(at or node) or "(root)", source_line(at or node)) if part)
    return f"{node.name} ({target}) in {where}"
