"""Run a script of timm's repository with the published DCLS networks registered.

    python tools/run_timm.py PATH/TO/validate.py --model convnext_dcls_tiny ...

The script gets its arguments as they are.
"""

import argparse
import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # dcls_mm, uninstalled


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('script', type=Path, help='such as validate.py or train.py')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='its arguments')
    return parser.parse_args()


def run(script, arguments):
    if not script.is_file():
        sys.exit(
            f'error: script {script} does not exist; it is in the repository of timm, '
            'https://github.com/huggingface/pytorch-image-models, not in its package'
        )
    try:
        import dcls_mm.timm_models  # noqa: F401
    except ImportError as error:
        sys.exit(f'error: {error}')
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))  # as `python SCRIPT` does
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    run(**vars(parse_args()))
