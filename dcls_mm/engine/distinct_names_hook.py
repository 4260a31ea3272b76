"""Outputs of a test that are called as the images are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from .config_checks import ConfigError


class DistinctNamesHook(Hook):
    """Stops a test whose outputs would overwrite each other.

    mmdet's pictures and mmseg's label maps are called as the images are, whatever the
    folders of these.

    Args:
        option: What asks for the outputs.
        with_suffix: Whether the outputs keep the images' suffixes.
    """

    def __init__(self, option: str, with_suffix: bool) -> None:
        self.option = option
        self.with_suffix = with_suffix

    def before_test(self, runner) -> None:
        """Compares the names.

        Raises:
            ConfigError: two images have one. It names them.
        """
        first: dict[str, str] = {}
        for path in _images(runner.test_dataloader.dataset):
            name = Path(path).name if self.with_suffix else Path(path).stem
            other = first.setdefault(name, path)
            if other != path:
                raise ConfigError(
                    f'{self.option}: the outputs of {other} and {path} would both be '
                    f'called {name}; test the folders one after the other, by '
                    '--cfg-options test_dataloader.dataset.data_prefix...'
                )


def _images(dataset: Any) -> Iterator[str]:
    """The files of a data set, or of those inside it, where its kind tells of them."""
    inner = getattr(dataset, 'datasets', None) or getattr(dataset, 'dataset', None)
    if inner is not None:
        for part in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from _images(part)
    elif hasattr(dataset, 'get_data_info'):
        infos = map(dataset.get_data_info, range(len(dataset)))
        yield from (info['img_path'] for info in infos if 'img_path' in info)
