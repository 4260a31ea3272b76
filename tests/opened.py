"""Which checkpoint files this process opens to read them, as Python itself tells."""

import os
import sys

CHECKPOINTS: list[str] = []  # their names, from when this is imported


def _note(event, arguments):
    if event == 'open' and isinstance(arguments[0], (str, os.PathLike)):
        path, _, flags = arguments
        name = os.path.basename(path)
        if name.endswith('.pth') and not flags & (os.O_WRONLY | os.O_RDWR):
            CHECKPOINTS.append(name)


sys.addaudithook(_note)
