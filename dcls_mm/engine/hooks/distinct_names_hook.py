"""Outputs of a test that are called as the images are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ...checks.dataset_checks import innermost_built
from ...checks.errors import ConfigError


class DistinctNamesHook(Hook):
    """Stops a test whose outputs would overwrite each other.

    mmdet's pictures, and mmseg's and its label maps, are called as the images are,
    whatever the folders of these.

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
    for part in innermost_built(dataset).values():
        if hasattr(part, 'get_data_info'):
            infos = map(part.get_data_info, range(len(part)))
            yield from (info['img_path'] for info in infos if 'img_path' in info)
