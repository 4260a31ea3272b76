"""The published `dcls` package under its own names and with its own arguments.

To port code and the state_dicts of its layers, replace ``from DCLS.construct.modules
import Dcls2d`` with ``from dcls_mm.layers.dropin import Dcls2d``. docs/migration.md
lists what differs, name by name.
"""

from ..published import VERSIONS, published_shifts
from .legacy_layer import LegacyDcls2d
from .modules import (
    Dcls1d,
    Dcls2_1d,
    Dcls2d,
    Dcls2dK1d,
    Dcls3_1d,
    Dcls3d,
    _DclsN_Md,
    _DclsNd,
)
from .published_kernel import (
    ConstructKernel1d,
    ConstructKernel2_1d,
    ConstructKernel2d,
    ConstructKernel3_1d,
    ConstructKernel3d,
)

__all__ = [
    'ConstructKernel1d',
    'ConstructKernel2_1d',
    'ConstructKernel2d',
    'ConstructKernel3_1d',
    'ConstructKernel3d',
    'Dcls1d',
    'Dcls2_1d',
    'Dcls2d',
    'Dcls2dK1d',
    'Dcls3_1d',
    'Dcls3d',
    'LegacyDcls2d',
    'VERSIONS',
    '_DclsN_Md',
    '_DclsNd',
    'published_shifts',
]
