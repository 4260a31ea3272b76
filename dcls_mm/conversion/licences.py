"""Licences of published ConvNeXt weights that restrict their use."""

import re
from pathlib import PurePosixPath

from .recognition import Match

DINOV3 = (
    'weights of DINOv3 are under the DINOv3 License, whose terms also bind what is '
    'trained from them'
)
EUPE = 'weights of EUPE are under the FAIR Noncommercial Research License'
V2 = (
    'the published weights of ConvNeXt-V2 are under CC BY-NC 4.0, which excludes '
    'commercial use'
)

_BY_FORMAT = {'dinov3': DINOV3, 'transformers-dinov3': DINOV3, 'eupe': EUPE}
_BY_FILE = {r'dinov3': DINOV3, r'eupe': EUPE, r'convnext-?_?v2': V2}


def notices(match: Match, filename: str = '') -> list[str]:
    """List the restrictions of a file, as its keys and its name reveal them.

    Args:
        match: what its keys were recognised as.
        filename: path or URL; converted files may keep the name of the weights.
    """
    found = [_BY_FORMAT[match.name]] if match.name in _BY_FORMAT else []
    if any(place and place.part == 'grn' for place in match.places.values()):
        found.append(V2)
    name = PurePosixPath(filename.split('?')[0]).name.lower()
    found += [said for pattern, said in _BY_FILE.items() if re.search(pattern, name)]
    return list(dict.fromkeys(found))
