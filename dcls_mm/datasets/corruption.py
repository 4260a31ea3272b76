"""Common image corruptions for the pipelines of both mmdet and mmseg."""

import inspect

import numpy as np
from mmcv.transforms import BaseTransform

# Smaller images are refused by the library.
LEAST_SIDE = 32


class CorruptImage(BaseTransform):
    """A transform that corrupts ``results['img']`` using `imagecorruptions`.

    The image is BGR (height, width, 3), or grey (height, width) or (height, width, 1).
    Corruptions are defined on 8 bits per channel. A grey image gets what the green
    channel of a grey picture would get; the mean of the channels would have less noise
    than the severity implies. Float images are accepted if they hold such 8-bit values,
    as from ``LoadImageFromFile(to_float32=True)``.

    mmdet's own ``Corrupt`` treats BGR as RGB and is missing from mmdet's fork and from
    mmseg.

    All randomness follows numpy's seed.

    Args:
        corruption: name of the corruption, such as 'fog'.
        severity: from 1 to 5.

    Source: arXiv 1903.12261.
    """

    def __init__(self, corruption: str, severity: int = 1) -> None:
        import imagecorruptions

        self.corrupt = imagecorruptions.corrupt
        self.corruption = corruption
        self.severity = severity
        # Two kinds draw from their own generator, a new one in each call.
        function = imagecorruptions.corruption_dict[corruption]
        self.takes_seed = 'seed' in inspect.signature(function).parameters

    def transform(self, results: dict) -> dict:
        """Corrupt the image of ``results``.

        Raises:
            ValueError: the image has the wrong format, or a side under 32 pixels.
        """
        image = results['img']
        problem = _problem(image)
        if problem:
            raise ValueError(
                f'CorruptImage: {results.get("img_path", "the image")} {problem}'
            )
        rgb = image[..., ::-1] if image.shape[2:] == (3,) else image
        rgb = np.ascontiguousarray(rgb, dtype=np.uint8)
        seed = {'seed': np.random.randint(2**31)} if self.takes_seed else {}
        corrupted = self.corrupt(rgb, self.severity, self.corruption, **seed)
        if image.shape[2:] == (3,):
            corrupted = corrupted[..., ::-1]
        else:
            corrupted = corrupted[..., 1].reshape(image.shape)
        results['img'] = np.ascontiguousarray(corrupted, dtype=image.dtype)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, '
            f'severity={self.severity})'
        )


def _problem(image: np.ndarray) -> str | None:
    """Say why an image can't be corrupted; None if it can."""
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        return f'must have 1 or 3 channels, has the shape {image.shape}'
    if min(image.shape[:2]) < LEAST_SIDE:
        size = '{}x{}'.format(*image.shape)
        return f'must have at least {LEAST_SIDE} pixels on each side, has {size}'
    if image.dtype == np.uint8:
        return None
    highest = image.max()
    if np.issubdtype(image.dtype, np.floating) and not 0 < highest <= 1:
        with np.errstate(invalid='ignore'):
            if np.array_equal(image, image.astype(np.uint8)):
                return None
    return (
        f'must hold 8-bit values (0 to 255), holds {image.dtype} from {image.min():g} '
        f'to {highest:g}'
    )
