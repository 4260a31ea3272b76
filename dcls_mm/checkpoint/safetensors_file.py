"""Files of the package safetensors, which hold tensors by name and nothing else."""

from collections import OrderedDict
from typing import Any, BinaryIO

import torch

from .errors import CheckpointError, Damage

SUFFIX = '.safetensors'


def read(
    file: BinaryIO, name: str, map_location: Any
) -> OrderedDict[str, torch.Tensor]:
    """Read all tensors of a file.

    The package itself checks that the header and the tensors fill the file exactly. The
    texts that the header may hold beside them are dropped.

    Args:
        file: the open file.
        name: its name in the error message.
        map_location: a device or its name; None for main memory.

    Raises:
        CheckpointError: the package is missing, or ``map_location`` is another kind.
        Damage: the file is not whole, or has another form.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise CheckpointError(
            f'checkpoint {name} needs the package safetensors to be read: '
            "pip install safetensors, or dcls_mm's extra 'safetensors'"
        ) from error
    if not isinstance(map_location, (str, torch.device, type(None))):
        raise CheckpointError(
            f'checkpoint {name} can only be read to a device, so map_location must be '
            f"one or its name, such as 'cpu', got {map_location!r}"
        )
    try:
        tensors = load(file.read())
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damage(str(error)) from error
    # The package sorts by dtype and name; keys in the order of names read better.
    return OrderedDict((key, tensors[key].to(map_location)) for key in sorted(tensors))
