"""Common corruptions of images, in the pipelines of mmdet and mmseg alike."""

import inspect

import numpy as np
from mmcv.transforms import BaseTransform

# Smaller images are refused by the library.
LEAST_SIDE = 32


class CorruptImage(BaseTransform):
    """Corrupts ``results['img']`` by `imagecorruptions`.

    The image is (height, width, 3) in BGR, or grey, (height, width) or (height, width,
    1); corruptions are defined on 8 bits a channel. A grey image gets what the green
    channel of a grey picture would get: the mean of the channels had less noise than
    the severity says. Images in floats are taken if they hold such 8-bit values, as
    ``LoadImageFromFile(to_float32=True)`` gives them.

    mmdet's own ``Corrupt`` takes BGR for RGB, is missing in its fork, and is no part of
    mmseg.

    What is random in it follows numpy's seed.

    Args:
        corruption: the name of one, such as 'fog'.
        severity: from 1 to 5.

    Source: arXiv 1903.12261.
    """

    def __init__(self, corruption: str, severity: int = 1) -> None:
        import imagecorruptions

        self.corrupt = imagecorruptions.corrupt
        self.corruption = corruption
        self.severity = severity
        # Two kinds draw from a generator of their own, another one in each call.
        function = imagecorruptions.corruption_dict[corruption]
        self.takes_seed = 'seed' in inspect.signature(function).parameters

    def transform(self, results: dict) -> dict:
        """See the class.

        Raises:
            ValueError: the image is of another form, or smaller than 32 pixels.
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
    """Why an image can't be corrupted, None if it can."""
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)):
        return f'must have 1 or 3 channels, has the shape {image.shape}'
    if min(image.shape[:2]) < LEAST_SIDE:
        size = '{}x{}'.format(*image.shape)
        return f'must be of {LEAST_SIDE} pixels at least on each side, is {size}'
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
