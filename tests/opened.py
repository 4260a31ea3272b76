"""A record of the checkpoint files that this process opens for reading."""

import os
import sys

CHECKPOINTS: list[str] = []  # names, since this module was imported


def _note(event, arguments):
    if event == 'open' and isinstance(arguments[0], (str, os.PathLike)):
        path, _, flags = arguments
        name = os.path.basename(path)
        if name.endswith('.pth') and not flags & (os.O_WRONLY | os.O_RDWR):
            CHECKPOINTS.append(name)


sys.addaudithook(_note)
