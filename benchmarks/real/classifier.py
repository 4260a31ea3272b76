"""EfficientNet-Lite0 on photographs, before and after its convolutions are replaced."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from .efficientnet_lite0 import (
    IMAGE_SIZE,
    INSTALL,
    find_weights,
    normalised,
    trained,
)
from .imagenet import name_of
from .learning import learn
from .photographs import Photograph, central_square
from .swap import IN_A_RING, INTERPOLATIONS, Outputs, Swap, compare

SHOWN = 5
STRIDED = r'_blocks\.(1|3|5|11)\.'
WIDE = {3: 9, 5: 17}
SWAPS = [
    Swap({3: 9}),
    Swap({5: 17}),
    Swap(WIDE, name=STRIDED),
    Swap(WIDE),
    Swap(WIDE, loaded=True),
    Swap({3: 11, 5: 17}),
    *(Swap(WIDE, options=options) for options in INTERPOLATIONS),
    *(Swap(WIDE, options=options, rings=1) for options in IN_A_RING),
]


def classify(tables: Any, photographs: list[Photograph], steps: int) -> bool:
    """Write the classifier's tables; say what to install if its weights are missing.

    Returns:
        Whether the weights were found.
    """
    path = find_weights()
    if path is None:
        print(f'\nEfficientNet-Lite0 is left out: {INSTALL}')
        return False
    model = trained(path)
    images = normalised(
        torch.stack([central_square(photo, IMAGE_SIZE) for photo in photographs])
    )
    write_predictions(tables, model, photographs, images)

    def run(model: nn.Module, dtype: torch.dtype) -> Outputs:
        return {'logits': logits(model, images, dtype)}

    tables.table('EfficientNet-Lite0 after the swap: largest relative differences')
    compare(tables, model, run, same_classes, SWAPS)
    if steps:
        learn(tables, model, photographs, steps)
    return True


def logits(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    model = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        return model(images.to(dtype))


def write_predictions(
    tables: Any, model: nn.Module, photographs: list[Photograph], images: Tensor
) -> None:
    tables.table('EfficientNet-Lite0 as published: the likeliest classes')
    probabilities = logits(model, images, torch.float32).softmax(1)
    for photo, row in zip(photographs, probabilities):
        likeliest = zip(*(each.tolist() for each in row.topk(SHOWN)))
        tables.row(
            {
                'photograph': photo.path.stem.lstrip('0'),
                'annotated objects': photo.shows,
                'classes': ', '.join(f'{name_of(i)} {p:.0%}' for p, i in likeliest),
            }
        )


def same_classes(ours: Outputs, theirs: Outputs) -> str:
    """Say for how many images the likeliest class and the first five are the same."""
    first, five = (
        (ours['logits'].topk(k).indices == theirs['logits'].topk(k).indices)
        for k in (1, SHOWN)
    )
    same = [int(agree.all(1).sum()) for agree in (first, five)]
    return f'top-1 {same[0]}, top-{SHOWN} {same[1]} of {len(first)}'
