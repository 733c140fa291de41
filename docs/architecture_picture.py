"""Draw the rooms of the package and who imports whom, from its source."""

import ast
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import sgworld_mcmc

# Rooms by layer, from top to bottom, with their places from left (0) to right (1).
LAYERS = (
    {"cli": 0.1, "demo": 0.7},
    {"kernels": 0.1, "infer": 0.42, "auditing": 0.88},
    {"report_page": 0.25, "exact": 0.9},
    {"report": 0.42},
    {"nonequilibrium": 0.12, "setup": 0.62},
    {"diagnostics": 0.18, "theory": 0.9},
    {"checkpoint": 0.12},
    {"sampling": 0.42},
    {"streaming": 0.3},
    {"model": 0.62},
)
# Two bands below the layers, whose imports by everything above are not drawn.
IDEAS = ("coordinates", "gradients", "integrators", "data")
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}


def imports():
    """Count the modules of each room that import another room: {(room, other): count}."""
    root = Path(sgworld_mcmc.__file__).parent
    found = Counter()
    for path in root.rglob("*.py"):
        if path == root / "__init__.py":
            continue
        here = path.relative_to(root).parts[0].removesuffix(".py")
        there = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sgworld_mcmc"):
                parts = node.module.split(".")[1:2] or [alias.name for alias in node.names]
                there.update(parts)
        found.update((here, other) for other in there - {here})
    return found


def _band(axis, y, text, color):
    box = {"boxstyle": "round,pad=0.02", "fc": "white", "ec": color}
    axis.add_patch(FancyBboxPatch((0.02, y - 0.22), 0.96, 0.44, **box))
    axis.text(0.5, y, text, ha="center", va="center", color=color)


def draw():
    """Return the picture as a figure of Matplotlib."""
    figure, axis = plt.subplots(figsize=(9, 6.5), layout="constrained")
    places = {room: (x, -level) for level, layer in enumerate(LAYERS) for room, x in layer.items()}
    boxes = {}
    for room, (x, y) in places.items():
        name = room + ("/" if room != "cli" else "")
        box = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": "0.25"}
        boxes[room] = axis.text(x, y, name, ha="center", va="center", bbox=box)
    bottom = -len(LAYERS)
    _band(axis, bottom, "the ideas:  " + ",  ".join(f"{name}/" for name in IDEAS), "tab:blue")
    modules = [path.stem for path in Path(sgworld_mcmc.__file__).parent.glob("*.py")]
    others = sorted({*modules, "protocols"} - {"__init__", *LEVEL})
    _band(axis, bottom - 0.75, "used by all:  " + ",  ".join(others), "0.25")
    axis.set(xlim=(0, 1), ylim=(bottom - 1.1, 0.4))
    axis.axis("off")
    figure.canvas.draw()  # arrows end at the boxes, whose sizes are known now
    for (room, other), count in imports().items():
        if room in places and other in places:
            ends = {"patchA": boxes[room].get_bbox_patch(), "patchB": boxes[other].get_bbox_patch()}
            style = {"color": "0.3", "lw": 0.5 + 0.35 * count**0.5, "alpha": 0.55}
            style |= {"arrowstyle": "-|>", "mutation_scale": 11, "connectionstyle": "arc3,rad=0.05"}
            axis.add_patch(FancyArrowPatch(places[room], places[other], **ends, **style))
    return figure
