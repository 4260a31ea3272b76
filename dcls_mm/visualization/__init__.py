"""Pictures that explain a model, as (height, width, 3) uint8 RGB arrays."""

from .contact_sheet import draw_contact_sheet
from .curves import Curve, draw_curves, read_curves
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
    'ReceptiveField',
    'depthwise_kernels',
    'displacement',
    'draw_contact_sheet',
    'draw_curves',
    'draw_histograms',
    'draw_kernels',
    'draw_movement',
    'draw_positions',
    'draw_receptive_fields',
    'draw_side_by_side',
    'noise_images',
    'read_curves',
    'receptive_field',
]
