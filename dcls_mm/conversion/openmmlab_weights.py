"""Conversions of whole models with the published ConvNeXt-dcls to OpenMMLab 2."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from .._listing import listing
from .convnext_weights import from_convnext_dcls
from .state_dicts import SHOWN_KEYS, check_state_dict

BACKBONE = 'backbone.'

# The parts of two-stage detectors and of encoder-decoders; all models have the first
# one. mmdet 2.28 and 3.3, and mmseg 0.30 and 1.2, give the published models' heads the
# same names and shapes, so only the backbone needs conversion.
DETECTOR_PARTS = ('roi_head.', 'rpn_head.', 'neck.')
SEGMENTOR_PARTS = ('decode_head.', 'auxiliary_head.', 'neck.')


def from_mmdet2(
    state_dict: Mapping[str, Tensor], *, version: str, sync_positions: bool = True
) -> OrderedDict:
    """Convert a two-stage detector of the published mmdet 2 code for mmdet 3.

    Args:
        state_dict: weights of a (Cascade) Mask R-CNN with a ConvNeXt-dcls backbone.
        version, sync_positions: as in :func:`from_convnext_dcls`.

    Raises:
        ValueError, TypeError: as in :func:`from_convnext_dcls`, or a key belongs to no
            part of such a model.
    """
    _check_parts(state_dict, DETECTOR_PARTS, 'a two-stage detector of mmdet 2')
    return from_convnext_dcls(
        state_dict, version=version, sync_positions=sync_positions, prefix=BACKBONE
    )


def from_mmseg0(
    state_dict: Mapping[str, Tensor], *, version: str, sync_positions: bool = True
) -> OrderedDict:
    """Convert a segmentor of the published mmseg 0 code for mmseg 1.

    Args:
        state_dict: weights of an encoder-decoder, such as UperNet, with that backbone.
        version, sync_positions: as in :func:`from_convnext_dcls`.

    Raises:
        ValueError, TypeError: as in :func:`from_mmdet2`.
    """
    _check_parts(state_dict, SEGMENTOR_PARTS, 'a segmentor of mmseg 0')
    return from_convnext_dcls(
        state_dict, version=version, sync_positions=sync_positions, prefix=BACKBONE
    )


def _check_parts(
    state_dict: Mapping[str, Tensor], parts: tuple[str, ...], source: str
) -> None:
    check_state_dict(state_dict)
    unknown = [key for key in state_dict if not key.startswith((BACKBONE, *parts))]
    if unknown:
        raise ValueError(
            f'state_dict is not of {source}, which has no '
            f'{listing(unknown, SHOWN_KEYS)}'
        )
    for part in (BACKBONE, parts[0]):
        if not any(key.startswith(part) for key in state_dict):
            raise ValueError(
                f'state_dict is not of {source}: it has no keys with {part}, only '
                f'{listing(state_dict, SHOWN_KEYS) or "nothing"}'
            )
