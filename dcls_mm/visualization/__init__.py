"""Pictures that explain a model, as (height, width, 3) uint8 RGB arrays."""

from .contact_sheet import draw_contact_sheet
from .curves import (
    Curve,
    draw_curves,
    draw_position_curves,
    read_curves,
    read_position_curves,
)
from .grad_cam import (
    NothingToExplain,
    detection_score,
    grad_cam,
    logit_score,
    overlay_map,
)
from .kernel_pictures import depthwise_kernels, draw_kernels
from .position_pictures import (
    displacement,
    draw_histograms,
    draw_movement,
    draw_positions,
)
from .prediction_pictures import draw_side_by_side
from .receptive_field import (
    SHARES,
    ReceptiveField,
    draw_receptive_fields,
    noise_images,
    receptive_field,
)

__all__ = [
    'SHARES',
    'Curve',
    'NothingToExplain',
    'ReceptiveField',
    'depthwise_kernels',
    'detection_score',
    'displacement',
    'draw_contact_sheet',
    'draw_curves',
    'draw_histograms',
    'draw_kernels',
    'draw_movement',
    'draw_position_curves',
    'draw_positions',
    'draw_receptive_fields',
    'draw_side_by_side',
    'grad_cam',
    'logit_score',
    'noise_images',
    'overlay_map',
    'read_curves',
    'read_position_curves',
    'receptive_field',
]
