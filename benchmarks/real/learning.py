"""A start to learn from: the swapped classifier learns to read larger images.

The network as published classifies photographs at 224 pixels. The same network is to
give the same probabilities for the same views at 320 pixels, where everything is 1.4
times as large. No labels are needed. It learns from the training photographs, and is
measured on the others.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .efficientnet_lite0 import IMAGE_SIZE, normalised
from .imagenet import name_of
from .photographs import Photograph, central_square, random_square
from .swap import Swap, layers_of, swapped

LARGER = 320
BATCH = 8
MEASURED = 24  # views
SWAP = Swap({3: 9, 5: 17})
GAUSS = Swap({3: 9, 5: 17}, options=dict(interpolation='gauss', initial_sigma=0))


class Trial(NamedTuple):
    """What learns, by the last part of the parameters' names, and how fast (Adam)."""

    title: str
    swap: Swap | None
    rates: dict[str, float]


TRIALS = [
    Trial('plain: depthwise weights', None, {'weight': 2e-4}),
    Trial('bilinear: positions', SWAP, {'P': 1e-2}),
    Trial('gauss, sigma 0: all', GAUSS, {'P': 1e-2, 'SIG': 1e-2, 'weight': 1e-4}),
    Trial('bilinear: both', SWAP, {'P': 1e-2, 'weight': 1e-4}),
]


class Views(NamedTuple):
    """Views of photographs at the larger size, with the network's own answer at 224.

    Attributes:
        larger: (n, 3, 320, 320).
        answer: log-probabilities, (n, classes).
    """

    larger: Tensor
    answer: Tensor


def learn(
    tables: Any, model: nn.Module, photographs: list[Photograph], steps: int
) -> None:
    """Write the tables of the trials.

    Args:
        tables: receives them.
        model: the trained classifier.
        photographs: of both splits.
        steps: training steps of each trial.
    """
    generator = torch.Generator().manual_seed(0)
    parts = {
        split: [photo for photo in photographs if photo.split == split]
        for split in ('train', 'val')
    }
    measured = _views(model, parts['val'], MEASURED, generator)
    batches = [_views(model, parts['train'], BATCH, generator) for _ in range(steps)]
    tables.table(
        f'EfficientNet-Lite0 at {LARGER} pixels learns what it says at {IMAGE_SIZE}: '
        f'{steps} steps'
    )
    tables.row(_measure('as published', model, measured, model))
    learned = model
    for trial in TRIALS:
        start = model if trial.swap is None else swapped(model, trial.swap)
        learned = train(start, trial.rates, batches)
        tables.row(_measure(trial.title, learned, measured, start))
    tables.table('The likeliest classes before and after the last trial')
    for photo in photographs:
        cells = {'photograph': photo.path.stem.lstrip('0')}
        for title, network, size in (
            (f'as published at {IMAGE_SIZE}', model, IMAGE_SIZE),
            (f'as published at {LARGER}', model, LARGER),
            (f'learned at {LARGER}', learned, LARGER),
        ):
            cells[title] = _likeliest(network, central_square(photo, size))
        tables.row(cells)


def train(model: nn.Module, rates: dict[str, float], batches: list[Views]) -> nn.Module:
    """Return a copy that has learned; its batch norms keep their statistics.

    Args:
        model: the network to start from.
        rates: Adam's learning rates of the parameters of depthwise convolutions, by
            name; no other parameter learns.
        batches: one per step.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    groups = [
        {'params': [getattr(conv, key) for conv in _depthwise(model)], 'lr': rate}
        for key, rate in rates.items()
    ]
    optimizer = torch.optim.Adam(groups)
    for group in groups:
        for parameter in group['params']:
            parameter.requires_grad_(True)
    for batch in batches:
        optimizer.zero_grad()
        _divergence(model(batch.larger), batch.answer).backward()
        optimizer.step()
    return model


def _depthwise(model: nn.Module) -> list[Any]:
    layers = layers_of(model)
    convs = [conv for conv in model.modules() if isinstance(conv, nn.Conv2d)]
    return layers or [conv for conv in convs if conv.groups == conv.in_channels > 1]


def _divergence(logits: Tensor, answer: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence from the answer, in nats."""
    return F.kl_div(
        logits.log_softmax(1), answer, log_target=True, reduction='batchmean'
    )


@torch.no_grad()
def _views(
    model: nn.Module,
    photographs: list[Photograph],
    count: int,
    generator: torch.Generator,
) -> Views:
    """Take random squares of photographs in turn."""
    picked = [photographs[i % len(photographs)] for i in range(count)]
    squares = [random_square(photo, 2 * IMAGE_SIZE, generator) for photo in picked]
    images = normalised(torch.stack(squares))
    small, larger = (
        F.interpolate(images, size=(size, size), mode='bilinear', antialias=True)
        for size in (IMAGE_SIZE, LARGER)
    )
    return Views(larger, model(small).log_softmax(1))


@torch.no_grad()
def _measure(
    title: str, model: nn.Module, views: Views, start: nn.Module
) -> dict[str, Any]:
    logits = model(views.larger)
    same = logits.argmax(1) == views.answer.argmax(1)
    row: dict[str, Any] = {
        'learns': title,
        'divergence, nats': float(_divergence(logits, views.answer)),
        'same top-1': f'{int(same.sum())} of {len(same)}',
    }
    layers, before = layers_of(model), layers_of(start)
    moved = [(ours.P - theirs.P).flatten() for ours, theirs in zip(layers, before)]
    shift = torch.cat(moved) if moved else None
    row['moved, px: mean'] = None if shift is None else float(shift.abs().mean())
    row['largest'] = None if shift is None else float(shift.abs().max())
    return row


@torch.no_grad()
def _likeliest(model: nn.Module, image: Tensor) -> str:
    probability, index = model(normalised(image[None])).softmax(1)[0].max(0)
    return f'{name_of(int(index))} {float(probability):.0%}'
