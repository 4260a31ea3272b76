"""What each command of ``tools/`` does, one module per command."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .compare import plot_predictions, plot_receptive_field
    from .convert import convert_file
    from .explain import plot_grad_cam
    from .export import export_model
    from .flops import Complexity, count_config
    from .fold import fold_checkpoint
    from .robustness import evaluate_corrupted
    from .trained import Trained, load_trained
    from .tuning_report import report_tuning
    from .visualize import (
        plot_kernels,
        plot_movement,
        plot_position_curves,
        plot_positions,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            'compare': ['plot_predictions', 'plot_receptive_field'],
            'convert': ['convert_file'],
            'explain': ['plot_grad_cam'],
            'export': ['export_model'],
            'flops': ['Complexity', 'count_config'],
            'fold': ['fold_checkpoint'],
            'robustness': ['evaluate_corrupted'],
            'trained': ['Trained', 'load_trained'],
            'tuning_report': ['report_tuning'],
            'visualize': [
                'plot_kernels',
                'plot_movement',
                'plot_position_curves',
                'plot_positions',
            ],
        },
    )

__all__ = [
    'Complexity',
    'Trained',
    'convert_file',
    'count_config',
    'evaluate_corrupted',
    'export_model',
    'fold_checkpoint',
    'load_trained',
    'plot_grad_cam',
    'plot_kernels',
    'plot_movement',
    'plot_position_curves',
    'plot_positions',
    'plot_predictions',
    'plot_receptive_field',
    'report_tuning',
]
