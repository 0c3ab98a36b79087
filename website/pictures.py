"""Draw the pictures of ``docs/how_it_works.md``.

python -m website.pictures
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH = 380
LINE = 15
STYLE = """\
.drawing { --ink: var(--md-default-fg-color, #222); max-width: 30rem; width: 100%; height: auto }
@media (prefers-color-scheme: dark) { .drawing { --ink: var(--md-default-fg-color, #ddd) } }
.drawing text { fill: var(--ink); font: 12px sans-serif }
.drawing text.code { font: 11px monospace; white-space: pre }
.drawing text.title { font-weight: bold }
.drawing rect { stroke: var(--ink); stroke-opacity: .4; fill: #888; fill-opacity: .1 }
.drawing rect.labeled { fill: #009688; fill-opacity: .25 }
.drawing rect.unlabeled { fill: #ff9800; fill-opacity: .25 }
.drawing path { stroke: var(--ink); fill: none }
.drawing path.head { fill: var(--ink) }
"""
"""On the site the colours follow its scheme, elsewhere that of the system."""


def drawing(parts: Sequence[str], height: int) -> str:
    """Return an SVG of parts in ``WIDTH`` times ``height`` units."""
    space = 'xmlns="http://www.w3.org/2000/svg"'
    head = f'<svg {space} class="drawing" viewBox="0 0 {WIDTH} {height}">'
    return "\n".join([head, f"<style>\n{STYLE}</style>", *parts, "</svg>\n"])


def box(x: int, y: int, width: int, lines: Sequence[str], kind: str = "", code: int = 0) -> str:
    """Return a box with centred lines, or with ``code`` lines of a list after the title."""
    height = LINE * len(lines) + 12
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>']
    for number, line in enumerate(lines):
        style = ("code" if number else "title") if code else ("" if number else "title")
        at = f'x="{x + 10}"' if code else f'x="{x + width / 2:g}" text-anchor="middle"'
        parts.append(
            f'<text class="{style}" {at} y="{y + 17 + LINE * number}">{escape(line)}</text>'
        )
    return "\n".join(parts)


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """Return a line through the points, whose head points as its last piece does."""
    (x0, y0), (x, y) = points[-2:]
    side = (x > x0) - (x < x0), (y > y0) - (y < y0)
    back, across = (x - 7 * side[0], y - 7 * side[1]), (4 * side[1], 4 * side[0])
    corners = [(back[0] + sign * across[0], back[1] + sign * across[1]) for sign in (1, -1)]
    line = "M" + " L".join(f"{px} {py}" for px, py in points)
    tip = f"M{x} {y} L" + " L".join(f"{px} {py}" for px, py in corners) + " Z"
    style = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{line}"{style}/>\n<path class="head" d="{tip}"/>'


def step() -> str:
    """Return the picture of a step, from the folders of images to the loss."""
    left, middle, right, wide = 4, 128, 252, 116
    return drawing(
        [
            box(left, 4, wide, ["imagesTr", "labelsTr"], "labeled"),
            box(middle, 4, 240, ["imagesUn", "no labels"], "unlabeled"),
            arrow((62, 46), (62, 68)),
            arrow((248, 46), (248, 68)),
            box(left, 68, 364, ["plan and preprocess", "one plan, from the labeled cases alone"]),
            arrow((62, 110), (62, 132)),
            arrow((248, 110), (248, 132)),
            box(left, 132, wide, ["labeled patch", "nnU-Net's", "augmentation"], "labeled"),
            box(
                middle,
                132,
                240,
                ["weak view", "nnU-Net's rotations,", "scales, mirrors"],
                "unlabeled",
            ),
            arrow((62, 189), (62, 278)),
            arrow((186, 189), (186, 206)),
            arrow((310, 189), (310, 206)),
            box(middle, 206, wide, ["strong view", "blur, noise, ..."], "unlabeled"),
            box(right, 206, wide, ["teacher", "no gradient"]),
            arrow((186, 248), (186, 278)),
            arrow((310, 248), (310, 278)),
            box(left, 278, 240, ["student", "nnU-Net's planned network"]),
            box(right, 278, wide, ["pseudo-label", "where it is sure"], "unlabeled"),
            arrow((62, 320), (62, 346)),
            arrow((186, 320), (186, 346)),
            arrow((310, 320), (310, 346)),
            box(left, 346, wide, ["supervised", "nnU-Net's loss"], "labeled"),
            box(middle, 346, 240, ["consistency", "times weight and ramp"], "unlabeled"),
            arrow((62, 388), (62, 410)),
            arrow((248, 388), (248, 410)),
            box(left, 410, 364, ["loss", "gradients of the student, optimizer"]),
            arrow((368, 431), (376, 431), (376, 227), (368, 227), dashed=True),
            arrow((186, 452), (186, 474)),
            box(left, 474, 364, ["checkpoint", "the teacher's or student's network"]),
        ],
        522,
    )


FOLDERS = (
    ("", "my_data", ["annotated/", "masks/", "unlabeled/"]),
    (
        "nnUNetv2_semisup_convert",
        "nnUNet_raw/Dataset501_Liver",
        [
            "imagesTr/    labeled scans",
            "labelsTr/    their labels",
            "imagesUn/    unlabeled scans",
            "imagesTs/    new scans, if there are",
            "dataset.json",
        ],
    ),
    (
        "nnUNetv2_semisup_plan_and_preprocess",
        "nnUNet_preprocessed/Dataset501_Liver",
        [
            "nnUNetPlans.json",
            "splits_final.json",
            "gt_segmentations/",
            "nnUNetPlans_3d_fullres/",
            "nnUNetPlans_3d_fullres_unlabeled/",
        ],
    ),
    (
        "nnUNetv2_train",
        "nnUNet_results/Dataset501_Liver/TRAINER.../fold_0",
        [
            "checkpoint_final.pth",
            "progress.png, semisup_progress.png",
            "semisup_config.json, semisup_terms.csv",
            "validation/",
        ],
    ),
    ("nnUNetv2_predict", "predictions", ["CASE.nii.gz"]),
    ("nnUNetv2_semisup_evaluate", "beside the predictions", ["semisup_evaluation.json"]),
)
"""The command that writes a folder, the folder, what is in it."""


def folders() -> str:
    """Return the picture of the folders, and the commands from one to the next."""
    parts, y = [], 4
    for command, folder, files in FOLDERS:
        if command:
            parts.append(arrow((20, y), (20, y + 26)))
            parts.append(f'<text class="code" x="32" y="{y + 17}">{command}</text>')
            y += 26
        kind = "unlabeled" if any("nlabeled" in file for file in files) else ""
        parts.append(box(4, y, 372, [folder, *files], kind, code=len(files)))
        y += LINE * (len(files) + 1) + 12
    return drawing(parts, y + 4)


PICTURES = {"step.svg": step, "folders.svg": folders}


def main() -> None:
    """Write the pictures anew."""
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
