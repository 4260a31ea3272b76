"""Grad-CAM: which places of an image speak for a class, as one stage sees them."""

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._figure import DENSITY

# How much of the picture the colours cover at most.
_OPACITY = 0.75
# Closer to 0 or 1 than this a score has no finite log-odds.
_CERTAIN = 1e-6


class NothingToExplain(ValueError):
    """An error for a class that a model doesn't predict in an image."""


def grad_cam(
    stage: nn.Module, score: Callable[[], Tensor], level: int = -1
) -> np.ndarray:
    """Compute Grad-CAM of a score at the output of a stage.

    That is ``relu(sum_k a_k A_k)`` over the channels A_k of the output, each weighted
    by the mean over all places of the score's gradient with respect to it.

    Args:
        stage: the part of a model whose output counts, such as its backbone; it runs
            once in ``score``, on one image.
        score: runs the model, which should be in evaluation mode, and returns what to
            explain, such as the logit of a class; see :func:`logit_score` and
            :func:`detection_score`.
        level: index of the output, if the stage has several.

    Returns:
        (height, width) of the output, at least 0, in units of the score per channel
        mean; it covers the whole image.

    Raises:
        ValueError: the stage doesn't run once, its output has another form, there is no
            such level, or the score is not a number that depends on it.

    Example:
        >>> import torch
        >>> from dcls_mm.visualization import grad_cam, logit_score
        >>> stage = torch.nn.Conv2d(3, 4, 3)
        >>> model = torch.nn.Sequential(
        ...     stage, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        ... )
        >>> image = torch.randn(1, 3, 8, 8)
        >>> grad_cam(stage, lambda: logit_score(model(image), label=2)).shape
        (6, 6)

    Source: Selvaraju et al., arXiv 1610.02391.
    """
    outputs: list[Tensor] = []

    def keep(module, inputs, output) -> None:
        outputs.append(_checked_output(output, level))

    handle = stage.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            value = score()
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f'the stage must run once for the score, it ran {len(outputs)} times'
        )
    if not isinstance(value, Tensor) or value.numel() != 1:
        form = tuple(getattr(value, 'shape', ())) or type(value).__name__
        raise ValueError(f'score must return a tensor of one number, got {form}')
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), outputs, allow_unused=True)
    if gradient is None:
        raise ValueError(
            'the score does not depend on this output of the stage, or the model lets '
            'no gradient through: choose another level'
        )
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * outputs[0]).sum(1)[0].relu().detach().float().cpu().numpy()


def _checked_output(output, level: int) -> Tensor:
    if isinstance(output, Sequence):
        if not -len(output) <= level < len(output):
            raise ValueError(
                f'level must be one of the {len(output)} outputs of the stage, '
                f'got {level}'
            )
        output = output[level]
    if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != 1:
        form = tuple(getattr(output, 'shape', ())) or type(output).__name__
        raise ValueError(
            'the stage must give an output of the form (1, channels, height, width), '
            f'got {form}'
        )
    if not output.requires_grad:  # all before it is frozen
        output.requires_grad_()
    return output


def logit_score(
    logits: Tensor, label: int | None = None, where: Tensor | None = None
) -> Tensor:
    """Return the logit of a class, or the sum of its logits over places.

    Args:
        logits: (1, classes) of a classifier or (1, classes, height, width) of a
            segmentor.
        label: index of the class; by default the one with the largest logit, in the
            most places.
        where: (height, width), True where the logits count; by default the places
            where the class has the largest logit.

    Raises:
        ValueError: the logits have another form, or there is no such class.
        NothingToExplain: it has the largest logit nowhere.
    """
    if not isinstance(logits, Tensor) or logits.ndim not in (2, 4) or len(logits) != 1:
        form = tuple(getattr(logits, 'shape', ())) or type(logits).__name__
        raise ValueError(
            f'logits must be (1, classes) or (1, classes, height, width), got {form}'
        )
    logits = logits[0].flatten(1) if logits.ndim == 4 else logits[0].unsqueeze(-1)
    best = logits.argmax(0)
    if label is None:
        label = int((best if where is None else best[where.flatten()]).mode().values)
    if not 0 <= label < len(logits):
        raise ValueError(f'label must be one of {len(logits)} classes, got {label}')
    chosen = logits.new_ones(logits.shape[1], dtype=torch.bool)
    if where is not None:
        chosen = where.flatten()
    elif logits.shape[1] > 1:
        chosen = best == label
    if not chosen.any():
        raise NothingToExplain(f'class {label} has the largest logit nowhere')
    return logits[label, chosen].sum()


def detection_score(
    scores: Tensor, labels: Tensor, label: int | None = None, least: float = 0.3
) -> Tensor:
    """Return the sum of the log-odds of a class's detections.

    Log-odds are the logits where a score is a sigmoid of one, and don't saturate.

    Args:
        scores: (detections,), between 0 and 1, with gradients.
        labels: (detections,), the index of each one's class.
        label: the class; by default that of the highest score.
        least: detections of lower scores don't count.

    Raises:
        ValueError: the scores have no gradients.
        NothingToExplain: no detection counts.
    """
    if len(scores) and not scores.requires_grad:
        raise ValueError(
            'the scores of this detector have no gradients, as in one-stage heads of '
            'mmdet, which detach them; use a two-stage detector'
        )
    if label is None and len(scores):
        label = int(labels[scores.argmax()])
    counted = (scores >= least) & (labels == (-1 if label is None else label))
    if not counted.any():
        kind = '' if label is None else f' of class {label}'
        raise NothingToExplain(
            f'there is no detection{kind} with a score of {least} or more'
        )
    return torch.logit(scores[counted], _CERTAIN).sum()


def overlay_map(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lay a map over an image, the more opaque the higher its values are.

    Args:
        image: (height, width, 3) uint8 RGB.
        values: (rows, columns), at least 0, over the whole image; enlarged linearly and
            shown relative to their maximum.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    rows = torch.as_tensor(values, dtype=torch.float)[None, None]
    large = F.interpolate(rows, image.shape[:2], mode='bilinear')[0, 0].numpy()
    share = large / max(float(large.max()), np.finfo(np.float32).tiny)
    colours = 255 * matplotlib.colormaps[DENSITY](share)[..., :3]
    opacity = _OPACITY * share[..., None]
    return (image * (1 - opacity) + colours * opacity).round().astype(np.uint8)
