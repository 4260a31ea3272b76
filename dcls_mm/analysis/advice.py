"""Advice from the figures: a table of rules, each with its threshold and reason.

The published extents were chosen by eye, from pictures in which positions gather at the
border of an extent that is too small (arXiv 2112.03740). The thresholds here are not
published; each rule says what its threshold is derived from. Advice is a hint on what
to try next, based on a single training run.
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
    """A rule that says when to give which advice.

    Attributes:
        name: name of the finding.
        applies: function that tells whether a layer has the finding.
        finding: function that puts a layer's figures into words.
        remedy: what to try.
        reason: why the threshold is what it is.
        judges_training: whether the rule is meaningless until the positions have moved.
    """

    name: str
    applies: Callable[[LayerStatistics], bool]
    finding: Callable[[LayerStatistics], str]
    remedy: str
    reason: str
    judges_training: bool = True


class Advice(NamedTuple):
    """A finding, its figures by layer, what to try and why."""

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
        'train longer before judging extent, count or sharing; let the positions learn '
        'faster (position_travel, in pixels, of DCLSOptimizerConstructor)',
        'they are still distributed as they started: normal, with the spread of that '
        'start (up to a tenth more), or on the whole pixels of the grid',
        judges_training=False,
    ),
    Rule(
        'elements beyond the extent',
        lambda layer: layer.lost > 0,
        lambda layer: f'{layer.lost:.1%} beyond by a pixel or more',
        'add ClampPositionsHook to custom_hooks',
        "a pixel beyond the outermost tap, an element of 'bilinear' or 'triangle' has "
        "neither taps nor a gradient to bring it back; one of 'max' or 'gauss' has "
        'less of both the farther out it is',
        judges_training=False,
    ),
    Rule(
        'extent too small',
        lambda layer: layer.border > BORDER_EXCESS * layer.even_border,
        lambda layer: (
            f'{layer.border:.0%} at the border, {layer.even_border:.0%} if even'
        ),
        'enlarge dilated_kernel_size',
        f'more than {BORDER_EXCESS:.2f} times as many elements are at the border as '
        'there would be if spread evenly over the extent. This is not chance: the '
        'clamp holds them back',
    ),
    Rule(
        'extent too large',
        lambda layer: layer.reach < LARGE_EXTENT_REACH,
        lambda layer: (
            f'99% within {layer.reach:.0%} of the limit, which fits in '
            f'dilated_kernel_size={layer.held_extent}'
        ),
        'reduce dilated_kernel_size, or train longer',
        f'99% of the elements use less than {LARGE_EXTENT_REACH:.0%} of the extent '
        'along each axis: the rest stays empty and costs time',
    ),
    Rule(
        'count too high',
        lambda layer: layer.crowded > CROWDED_SHARE,
        lambda layer: (
            f'{layer.crowded:.0%} of {layer.count} elements crowded, '
            f'{layer.distinct:.0f} taps in use'
        ),
        'reduce kernel_count towards the taps in use, or add RepulsionLossHook',
        f'more than {CROWDED_SHARE:.0%} of the elements are closer than a pixel to '
        'another one of their kernel, so they write to the same taps; of the published '
        '34 elements in 17x17 pixels, spread evenly, a third are by chance',
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
        'layers of the same shape have their weight in the same places, up to a '
        f'Kolmogorov-Smirnov distance below {SAME_BLOCKS}. This means that one '
        'distribution suits them all, not that one set of positions does',
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
        'the layers put weight on different ones of their shared positions, by a '
        f'Kolmogorov-Smirnov distance above {OTHER_BLOCKS}. This evidence is indirect: '
        'a checkpoint does not show where each layer would move its elements',
    ),
)


def advise(statistics: Mapping[str, LayerStatistics]) -> list[Advice]:
    """Return the advice of all rules that apply, in the order of ``RULES``.

    A healthy model gets none. Blocks are compared only in layers of at least 500
    elements: below that, two random samples of one distribution already differ by about
    0.1.

    Args:
        statistics: figures by layer from ``compute_statistics``.
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
