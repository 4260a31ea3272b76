"""Draw a trained model: its kernels, positions, receptive field and predictions."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # dcls_mm, uninstalled
from dcls_mm.apis import compare, explain, visualize  # noqa: E402
from dcls_mm.apis.command import add_override_argument, run  # noqa: E402

COMMANDS = {
    'kernels': (visualize.plot_kernels, 'constructed kernels by layer'),
    'positions': (visualize.plot_positions, 'positions of the elements'),
    'movement': (visualize.plot_movement, 'how the positions moved during training'),
    'curves': (
        visualize.plot_position_curves,
        'extent, count, spread and travel of the positions over a training',
    ),
    'receptive-field': (
        compare.plot_receptive_field,
        'effective receptive field of one backbone, or of two side by side',
    ),
    'grad-cam': (
        explain.plot_grad_cam,
        'what in an image speaks for a class, for one model or two side by side',
    ),
    'predictions': (
        compare.plot_predictions,
        'predictions of one model, or of two side by side',
    ),
}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text)
        for name, (_, text) in COMMANDS.items()
    }
    for name, command in parsers.items():
        if name != 'curves':
            command.add_argument('config', help='config file of the model')
            add_override_argument(command)
        if name in ('movement', 'curves'):
            command.add_argument('work_dir', help='folder of the training')
        else:
            command.add_argument('checkpoint', help='file, or URL that mmengine knows')
        folder = name in ('movement', 'grad-cam', 'predictions')
        command.add_argument(
            '--out', required=True, help='folder to fill' if folder else 'PNG file'
        )
    for name in ('kernels', 'movement'):
        parsers[name].add_argument(
            '--columns',
            type=int,
            default=8 if name == 'kernels' else 5,
            help='number of kernels to draw per layer (default: %(default)s)',
        )
    for name in ('receptive-field', 'grad-cam', 'predictions'):
        parsers[name].add_argument(
            '--against',
            nargs=2,
            metavar=('CONFIG', 'CHECKPOINT'),
            help='a second model to compare with',
        )
        parsers[name].add_argument('--names', nargs='+', help='names of the models')
        parsers[name].add_argument(
            '--count',
            type=int,
            default=10,
            help='maximum number of images (default: %(default)s)',
        )
    add_receptive_field(parsers['receptive-field'])
    add_grad_cam(parsers['grad-cam'])
    add_predictions(parsers['predictions'])
    return parser.parse_args()


def add_receptive_field(parser):
    parser.add_argument('--images', help='an image or a folder (default: noise)')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        default=[1024, 1024],
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels (default: 1024 1024)',
    )
    add_level(parser)
    parser.add_argument(
        '--shares',
        type=float,
        nargs='+',
        default=[0.5, 0.8, 0.95],
        help='shares of the contribution whose squares are measured '
        '(default: 0.5 0.8 0.95)',
    )


def add_grad_cam(parser):
    parser.add_argument('--images', required=True, help='an image or a folder')
    parser.add_argument('--label', help='name of the class (default: the main one)')
    parser.add_argument(
        '--point',
        type=int,
        nargs=2,
        metavar=('ROW', 'COLUMN'),
        help='of a segmentor, the pixel to explain (default: all of the class)',
    )
    add_level(parser)
    add_inference(parser)


def add_predictions(parser):
    parser.add_argument(
        '--images',
        help='an image or a folder (default: the test set, with its ground truth)',
    )
    add_inference(parser)


def add_level(parser):
    parser.add_argument(
        '--level',
        type=int,
        default=-1,
        help="index of the backbone's output (default: -1, the last)",
    )


def add_inference(parser):
    parser.add_argument(
        '--score-threshold',
        type=float,
        default=0.3,
        help='minimum score of a detection that counts (default: %(default)s)',
    )
    parser.add_argument(
        '--device', help='device such as cpu or cuda:0 (default: the GPU, if any)'
    )


def main(command, **options):
    function, _ = COMMANDS[command]
    return function(**options)


if __name__ == '__main__':
    run(main, vars(parse_args()))
