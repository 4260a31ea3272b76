"""Common corruptions of images, in the pipelines of mmdet and mmseg alike."""

import numpy as np
from mmcv.transforms import BaseTransform


class CorruptImage(BaseTransform):
    """Corrupts ``results['img']``, (height, width, 3) in BGR, by `imagecorruptions`.

    mmdet's own ``Corrupt`` takes BGR for RGB, is missing in its fork, and is no part of
    mmseg.

    Args:
        corruption: the name of one, such as 'fog'.
        severity: from 1 to 5.

    Source: arXiv 1903.12261.
    """

    def __init__(self, corruption: str, severity: int = 1) -> None:
        from imagecorruptions import corrupt

        self.corrupt = corrupt
        self.corruption = corruption
        self.severity = severity

    def transform(self, results: dict) -> dict:
        """See the class."""
        image = np.ascontiguousarray(results['img'][..., ::-1], dtype=np.uint8)
        corrupted = self.corrupt(image, self.severity, self.corruption)
        results['img'] = np.ascontiguousarray(corrupted[..., ::-1], dtype=np.uint8)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, '
            f'severity={self.severity})'
        )
