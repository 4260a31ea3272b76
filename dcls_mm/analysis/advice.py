"""From the figures to advice: a table of rules, each with its threshold and reason.

The published extents were chosen by eye, from pictures of positions that gather at the
border of an extent that is too small (arXiv 2112.03740). The thresholds here are not
published; each says what it is derived from. Advice is a hint on what to try next, on
the evidence of one training.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .statistics import LayerStatistics

BORDER_EXCESS = 1.25
LARGE_EXTENT_REACH = 0.5
CROWDED_SHARE = 0.5
ZERO_SIGMA_SHARE = 0.5
SAME_BLOCKS = 0.1
OTHER_BLOCKS = 0.2
COMPARED_ELEMENTS = 500


class Rule(NamedTuple):
    """When advice is given, and which.

    Attributes:
        name: of what is found.
        applies: whether it is found in a layer.
        finding: the figures, in words.
        remedy: what to try.
        reason: why this is the threshold.
        judges_training: whether it means nothing while the positions lie as they
            started.
    """

    name: str
    applies: Callable[[LayerStatistics], bool]
    finding: Callable[[LayerStatistics], str]
    remedy: str
    reason: str
    judges_training: bool = True


class Advice(NamedTuple):
    """What is found, in which layers with which figures, what to try and why."""

    name: str
    findings: dict[str, str]
    remedy: str
    reason: str


def _comparable(layer: LayerStatistics) -> bool:
    enough = layer.kernels * layer.count >= COMPARED_ELEMENTS
    return layer.block_difference is not None and enough


RULES = (
    Rule(
        'positions have not moved',
        lambda layer: layer.learned and not layer.moved,
        lambda layer: f'spread {layer.spread:.2f} pixels',
        'train on before judging extent, count or sharing; let the positions learn '
        'faster (DCLSOptimizerConstructor, position_lr_mult=5 as published)',
        'they still lie as they started: normal, of 0.5 pixels spread (up to a tenth '
        'more), or on the whole pixels of the grid',
        judges_training=False,
    ),
    Rule(
        'elements beyond the extent',
        lambda layer: layer.lost > 0,
        lambda layer: f'{layer.lost:.1%} a pixel or more beyond',
        'add ClampPositionsHook to custom_hooks',
        "a pixel beyond the outermost tap, an element of 'bilinear' or 'triangle' has "
        "neither taps nor a gradient by which to come back; one of 'max' or 'gauss' "
        'has the less of both the farther it is',
        judges_training=False,
    ),
    Rule(
        'extent too small',
        lambda layer: layer.border > BORDER_EXCESS * layer.even_border,
        lambda layer: (
            f'{layer.border:.0%} at the border, {layer.even_border:.0%} if even'
        ),
        'enlarge dilated_kernel_size',
        f'more than {BORDER_EXCESS:.2f} times as many elements sit at the border as if '
        'they lay evenly over the extent, which is beyond chance: the clamp holds them '
        'back',
    ),
    Rule(
        'extent too large',
        lambda layer: layer.reach < LARGE_EXTENT_REACH,
        lambda layer: (
            f'99% within {layer.reach:.0%} of the limit, which dilated_kernel_size='
            f'{layer.held_extent} holds'
        ),
        'reduce dilated_kernel_size, or train longer',
        f'99% of the elements use less than {LARGE_EXTENT_REACH:.0%} of the extent '
        'along each axis: the rest costs time and stays empty',
    ),
    Rule(
        'count too high',
        lambda layer: layer.crowded > CROWDED_SHARE,
        lambda layer: (
            f'{layer.crowded:.0%} of {layer.count} elements crowded, '
            f'{layer.distinct:.0f} taps in use'
        ),
        'reduce kernel_count towards the taps in use, or add RepulsionLossHook',
        f'more than {CROWDED_SHARE:.0%} of the elements have another of their kernel '
        'closer than a pixel, so that they write to common taps; spread evenly, the '
        'published 34 in 17x17 pixels have a third of them so by chance',
    ),
    Rule(
        'sigma stays at zero',
        lambda layer: layer.sigma is not None and layer.sigma.zero > ZERO_SIGMA_SHARE,
        lambda layer: f'{layer.sigma.zero:.0%} of the sigmas are 0',
        'give the layers an initial_sigma above 0',
        f'more than {ZERO_SIGMA_SHARE:.0%} are exactly 0, where sigma has no gradient',
        judges_training=False,
    ),
    Rule(
        'positions could be shared',
        lambda layer: (
            not layer.shared
            and _comparable(layer)
            and layer.block_difference < SAME_BLOCKS
        ),
        lambda layer: (
            f'{layer.blocks} layers alike, difference {layer.block_difference:.2f}'
        ),
        'sync_positions=True (or share_positions), with fewer parameters',
        'layers of one shape have their weight in the same places, up to a '
        f'Kolmogorov-Smirnov distance below {SAME_BLOCKS}. That tells that one '
        'distribution serves all, not that one set of positions does',
    ),
    Rule(
        'sharing may hold the layers back',
        lambda layer: (
            layer.shared
            and _comparable(layer)
            and layer.block_difference > OTHER_BLOCKS
        ),
        lambda layer: (
            f'{layer.blocks} layers share, difference {layer.block_difference:.2f}'
        ),
        'sync_positions=False',
        'of the positions that they share, the layers weight different ones, by a '
        f'Kolmogorov-Smirnov distance above {OTHER_BLOCKS}. This evidence is indirect: '
        'where each layer would move its elements, a checkpoint does not tell',
    ),
)


def advise(statistics: Mapping[str, LayerStatistics]) -> list[Advice]:
    """The rules that apply, in the order of ``RULES``; none for a healthy model.

    Blocks are compared only in layers of at least 500 elements: below that two random
    samples of one distribution already differ by some 0.1.

    Args:
        statistics: as ``compute_statistics`` gives them.
    """
    found = []
    for rule in RULES:
        findings = {
            name: rule.finding(layer)
            for name, layer in statistics.items()
            if (layer.moved or not rule.judges_training) and rule.applies(layer)
        }
        if findings:
            found.append(Advice(rule.name, findings, rule.remedy, rule.reason))
    return found
