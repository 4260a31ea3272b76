"""The effective receptive field of a backbone: computed, measured and drawn."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from ._figure import DENSITY, NORMAL, SMALL, new_figure, render, set_title

# Default shares of the contribution whose area is measured.
SHARES = (0.5, 0.8, 0.95)
# Decades that the colour scale spans.
_DECADES = 5
# Width of a panel in inches.
_PANEL = 4.6


class ReceptiveField(NamedTuple):
    """Contribution of each input pixel to the central output.

    Attributes:
        contribution: (height, width), with sum 1.
        centre: (row, column) of the middle of the central output, in pixels from the
            upper left corner of the image; pixel 0 spans 0 to 1.
        stride: pixels per output.
    """

    contribution: np.ndarray
    centre: tuple[float, float]
    stride: int

    def side(self, share: float) -> float:
        """Return the side of the smallest square around the centre holding ``share``.

        The side is in pixels and counts whole pixels. If the square reaches the edges
        of the image, the true field is larger, since what is outside is not seen.

        Source: RepLKNet, arXiv 2203.06717, whose table of effective receptive fields
        gives the square's area relative to the image's.

        Raises:
            ValueError: ``share`` is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise ValueError(f'share must be between 0 and 1, got {share}')
        rows, columns = (
            np.abs(np.arange(size) + 0.5 - middle) + 0.5
            for size, middle in zip(self.contribution.shape, self.centre)
        )
        half = np.maximum.outer(rows, columns).ravel()
        order = np.argsort(half, kind='stable')
        inside = self.contribution.ravel()[order].cumsum()
        last = min(np.searchsorted(inside, share), len(order) - 1)
        return float(2 * half[order[last]])


def receptive_field(
    backbone: nn.Module, images: Iterable[Tensor], level: int = -1, seed: int = 0
) -> ReceptiveField:
    """Compute the effective receptive field of a backbone's central output.

    It is the absolute gradient of the central output unit with respect to the image,
    summed over the image's channels and averaged over images. The unit's channels are
    added with random signs, drawn anew for each image. The plain sum, as in the source,
    is nearly constant after a layer norm and has almost no gradient.

    Args:
        backbone: (1, channels, height, width) -> one or several outputs of that form;
            run in evaluation mode and then returned to its own.
        images: (channels, height, width) each, all of one size, normalised for the
            backbone.
        level: index of the output, if there are several.
        seed: seed of the signs.

    Raises:
        ValueError: there are no images, they differ in size, the backbone rejects their
            size, there is no such output, or it does not depend on the images.

    Source: Luo et al., arXiv 1701.04128.
    """
    generator = torch.Generator().manual_seed(seed)
    training = backbone.training
    backbone.eval()
    total, count = 0.0, 0
    try:
        for image in images:
            if count and image.shape[-2:] != total.shape:
                raise ValueError(
                    f'images must be of one size, got {tuple(image.shape[-2:])} after '
                    f'{tuple(total.shape)}'
                )
            output = _output(backbone, image.unsqueeze(0).requires_grad_(), level)
            gradient, place = _central_gradient(*output, generator)
            total = total + gradient.abs().sum((0, 1)).double().cpu()
            count += 1
    finally:
        backbone.train(training)
    if not count:
        raise ValueError('images is empty')
    whole = float(total.sum())
    if not np.isfinite(whole) or whole <= 0:
        raise ValueError(
            'the central output does not depend on the images, or its gradient is not '
            'finite'
        )
    size, outputs = total.shape, place
    centre = tuple((n // 2 + 0.5) * s / n for s, n in zip(size, outputs))
    return ReceptiveField((total / whole).numpy(), centre, round(size[0] / outputs[0]))


def _output(backbone: nn.Module, image: Tensor, level: int) -> tuple[Tensor, Tensor]:
    try:
        with torch.enable_grad():
            output = backbone(image)
    except RuntimeError as error:
        form = 'x'.join(map(str, image.shape[1:]))
        raise ValueError(
            f'the backbone takes no image of {form} (channels, height, width): {error}'
        ) from error
    if isinstance(output, Sequence):
        if not -len(output) <= level < len(output):
            raise ValueError(
                f'level must be one of the {len(output)} outputs of the backbone, '
                f'got {level}'
            )
        output = output[level]
    if not isinstance(output, Tensor) or output.ndim != 4:
        form = tuple(getattr(output, 'shape', ())) or type(output).__name__
        raise ValueError(
            'the backbone must give outputs of the form (batch, channels, height, '
            f'width), got {form}'
        )
    return image, output


def _central_gradient(
    image: Tensor, output: Tensor, generator: torch.Generator
) -> tuple[Tensor, tuple[int, int]]:
    height, width = output.shape[-2:]
    unit = output[0, :, height // 2, width // 2]
    signs = torch.randint(0, 2, unit.shape, generator=generator) * 2 - 1
    (gradient,) = torch.autograd.grad((unit * signs.to(unit)).sum(), image)
    return gradient, (height, width)


def noise_images(
    count: int, shape: tuple[int, int], channels: int = 3, seed: int = 0
) -> Iterable[Tensor]:
    """Yield images of independent N(0, 1) values, the statistics of normalised ones."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(channels, *shape, generator=generator)


def draw_receptive_fields(
    fields: Mapping[str, ReceptiveField], shares: Sequence[float] = SHARES
) -> np.ndarray:
    """Draw receptive fields side by side with one logarithmic colour scale.

    Squares enclose ``shares`` of the contribution.

    Args:
        fields: name -> field.
        shares: shares of the contribution, each between 0 and 1.

    Raises:
        ValueError: there are no fields.
    """
    if not fields:
        raise ValueError('fields is empty')
    figure = new_figure(_PANEL * len(fields) + 1.0, 5.2)
    axes = figure.subplots(1, len(fields), squeeze=False)[0]
    highest = max(field.contribution.max() for field in fields.values())
    scale = LogNorm(highest / 10**_DECADES, highest)
    for axis, (name, field) in zip(axes, fields.items()):
        (height, width), (row, column) = field.contribution.shape, field.centre
        panel = axis.imshow(
            field.contribution.clip(scale.vmin),
            norm=scale,
            cmap=DENSITY,
            extent=(-column, width - column, height - row, -row),
            interpolation='none',
        )
        for share, line in zip(shares, cycle(('-', '--', ':', '-.'))):
            side = field.side(share)
            axis.add_patch(
                Rectangle(
                    (-side / 2, -side / 2),
                    side,
                    side,
                    fill=False,
                    color='white',
                    linestyle=line,
                    label=f'{share:.0%} in {side:.0f}x{side:.0f} pixels',
                )
            )
        axis.set_xlim(-column, width - column)
        axis.set_ylim(height - row, -row)
        set_title(axis, name, _PANEL)
        axis.set_xlabel('column (pixels from the central output)', fontsize=8)
        axis.tick_params(labelsize=SMALL)
        axis.legend(
            loc='lower left', fontsize=8, facecolor='#404040', labelcolor='white'
        )
    axes[0].set_ylabel('row (pixels from the central output)', fontsize=8)
    bar = figure.colorbar(panel, ax=axes, fraction=0.03, pad=0.02, extend='min')
    bar.set_label('share of the contribution per pixel', fontsize=8)
    bar.ax.tick_params(labelsize=SMALL)
    figure.suptitle(
        'Effective receptive field: |gradient| of the central output', fontsize=NORMAL
    )
    return render(figure)
