"""What the scripts of tools/ share: arguments, and how errors end them."""

import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from mmengine.config import DictAction

from ..checkpoint import CheckpointError
from ..checkpoint.mmengine_loaders import as_data
from ..checks.errors import ConfigError
from ..engine.hooks.finite_loss_hook import NonFiniteLossError
from ..layers.noted import StateDictError


def add_override_argument(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``, for scripts that read a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        type=_assignment,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_dataloader.batch_size=4',
    )


def add_model_arguments(parser: ArgumentParser) -> None:
    """Add the config and checkpoint of a trained model, and ``--cfg-options``."""
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('checkpoint', help='file, or URL that mmengine knows')
    add_override_argument(parser)


def add_common_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that training and testing share."""
    add_override_argument(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed job',
    )
    # torch.distributed.launch passes it; the stock scripts take both spellings.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


# Matches where a value, or an element of a list, is a dict in Python's syntax.
_DICT = re.compile(r"""(?:^|[\[(,])\s*['"]?(?:dict\(|\{\s*['"])""")


def _assignment(text: str) -> str:
    """Check an override that ``DictAction`` would misread or fail on with a traceback.

    Raises:
        ArgumentTypeError: it is not KEY=VALUE, contains a dict, or has unbalanced
            brackets.
    """
    key, equals, value = text.partition('=')
    if not (key and equals):
        raise ArgumentTypeError(f'expected KEY=VALUE, got {text!r}')
    if _DICT.search(value):
        raise ArgumentTypeError(
            f"{key}: a dict can't be given here, got {value!r}; write it into a config "
            f'whose _base_ is this one, or set keys of a section by {key}.NAME=VALUE'
        )
    try:
        DictAction._parse_iterable(value)
    except (AssertionError, RecursionError):
        raise ArgumentTypeError(
            f'{key}: expected a value, or a list such as [1,2] or (1,2), got {value!r}'
        ) from None
    return text


def run(function: Callable[..., Any], options: dict[str, Any]) -> None:
    """Call a function as a command, and print the text that it returns, if any.

    A mistake in the config, the options or a checkpoint, a layer that refuses a file of
    ``init_cfg``, and a loss that is not finite end the process with status 1 and a
    one-line message. Any other error keeps its traceback.

    Args:
        function: what the command does.
        options: its arguments, and ``local_rank`` if the launcher passes it.
    """
    os.environ.setdefault('LOCAL_RANK', str(options.pop('local_rank', 0)))
    try:
        with as_data():
            said = function(**options)
    except (ConfigError, CheckpointError, NonFiniteLossError) as error:
        sys.exit(f'error: {error}')
    except StateDictError as error:  # mmengine has logged which file it loaded
        sys.exit(f'error: {error.reason}')
    except KeyboardInterrupt:
        sys.stderr.write('interrupted\n')
        sys.exit(130)
    if isinstance(said, str):
        print(said)
