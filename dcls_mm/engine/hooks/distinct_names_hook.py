"""A check for outputs of a test that are named after the images."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from ...checks.dataset_checks import innermost_built
from ...checks.errors import ConfigError


class DistinctNamesHook(Hook):
    """A hook that stops a test whose outputs would overwrite each other.

    The pictures of mmdet and mmseg, and mmseg's label maps, are named after the images,
    whatever the images' folders.

    Args:
        option: the option that asks for the outputs.
        with_suffix: whether the outputs keep the images' suffixes.
    """

    def __init__(self, option: str, with_suffix: bool) -> None:
        self.option = option
        self.with_suffix = with_suffix

    def before_test(self, runner) -> None:
        """Compare the names.

        Raises:
            ConfigError: two images share a name; the message says which.
        """
        first: dict[str, str] = {}
        for path in _images(runner.test_dataloader.dataset):
            name = Path(path).name if self.with_suffix else Path(path).stem
            other = first.setdefault(name, path)
            if other != path:
                raise ConfigError(
                    f'{self.option}: the outputs of {other} and {path} would both be '
                    f'called {name}; test the folders one after the other, with '
                    '--cfg-options test_dataloader.dataset.data_prefix...'
                )


def _images(dataset: Any) -> Iterator[str]:
    """Yield the files of a data set, or of those inside it, if they can be listed."""
    for part in innermost_built(dataset).values():
        if hasattr(part, 'get_data_info'):
            infos = map(part.get_data_info, range(len(part)))
            yield from (info['img_path'] for info in infos if 'img_path' in info)
