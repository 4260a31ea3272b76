"""Whole models with the published ConvNeXt-dcls backbone, for OpenMMLab 2."""

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor

from .._listing import listing
from .convnext_weights import from_convnext_dcls
from .state_dicts import SHOWN_KEYS, check_state_dict

BACKBONE = 'backbone.'

# What two-stage detectors and encoder-decoders consist of; the first part is one that
# all have. mmdet 2.28 and 3.3, and mmseg 0.30 and 1.2, name and shape the published
# models' heads alike, so that only the backbone is converted.
DETECTOR_PARTS = ('roi_head.', 'rpn_head.', 'neck.')
SEGMENTOR_PARTS = ('decode_head.', 'auxiliary_head.', 'neck.')


def from_mmdet2(
    state_dict: Mapping[str, Tensor], *, version: str, sync_positions: bool = True
) -> OrderedDict:
    """A two-stage detector's weights for mmdet 3, from the published mmdet 2 code.

    Args:
        state_dict: of a (Cascade) Mask R-CNN with a ConvNeXt-dcls backbone.
        version, sync_positions: as in :func:`from_convnext_dcls`.

    Raises:
        ValueError, TypeError: as :func:`from_convnext_dcls`; also for keys that are of
            no part of such a model.
    """
    _check_parts(state_dict, DETECTOR_PARTS, 'a two-stage detector of mmdet 2')
    return from_convnext_dcls(
        state_dict, version=version, sync_positions=sync_positions, prefix=BACKBONE
    )


def from_mmseg0(
    state_dict: Mapping[str, Tensor], *, version: str, sync_positions: bool = True
) -> OrderedDict:
    """A segmentor's weights for mmseg 1, from the published mmseg 0 code.

    Args:
        state_dict: of an encoder-decoder, such as UperNet, with that backbone.
        version, sync_positions: as in :func:`from_convnext_dcls`.

    Raises:
        ValueError, TypeError: as :func:`from_mmdet2`.
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
