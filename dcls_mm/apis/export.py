"""Backbones, segmentors and detectors as ONNX, TorchScript and torch.export files."""

import os
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..checks.arguments import check_option
from ..checks.errors import ConfigError, errors_about, refusals
from ..deploy.parts import (
    CHECKED_SHAPES,
    PARTS,
    RECORDED_SHAPE,
    Part,
    check_difference,
    largest_difference,
    sample_images,
    take_part,
)
from ..deploy.pooling import unroll_pooling
from ..functional import native_code
from ..layers import ConstructedConvNd
from ..layers.folding import FORMS, Folded, switch_to_deploy
from .outputs import check_new, whole_files
from .trained import load_trained

Outputs = Sequence[Tensor]


class Format(NamedTuple):
    """A file format of recorded models.

    Attributes:
        write: takes (part, images, path) and writes the file.
        read: takes (path) and returns a function from images to outputs, or None if no
            package that runs the file is installed.
        needs: the packages that writing needs.
        forms: of folded layers that it can hold.
    """

    write: Callable[[Part, Tensor, Path], None]
    read: Callable[[Path], Callable[[Tensor], Outputs] | None]
    needs: tuple[str, ...] = ()
    forms: tuple[str, ...] = tuple(FORMS)


def export_model(
    config: str,
    checkpoint: str,
    out: str,
    format: str,
    part: str = 'model',
    form: str = 'dense',
    cfg_options: dict[str, Any] | None = None,
) -> str:
    """Fold the DCLS layers of a model, and write it to a file.

    In the dense form the file needs no dcls_mm. In the sparse form it has an operator
    of dcls_mm, so what loads it must be Python that has imported dcls_mm, with its
    compiled part, on a CPU.

    Batch, height and width stay dynamic. :mod:`..deploy.parts` describes inputs and
    outputs: a segmentor returns logits at the images' size, a detector the outputs of
    its dense layers. mmdet selects boxes in Python, with operators (nms, RoIAlign) that
    these formats have only through mmcv or not at all. Before the file is moved into
    place, it is run at sizes other than the recorded one and compared with the model.

    Args:
        config, cfg_options: see :func:`.configs.load_config`.
        checkpoint: the weights: a path, or a URL that mmengine knows.
        out: the file to write.
        format: a key of ``FORMATS``.
        part: 'backbone' or 'model'.
        form: of the folded layers, see :func:`dcls_mm.layers.switch_to_deploy`.

    Returns:
        One line that says what was written and how far it differs.

    Raises:
        ConfigError: the config can't be used, a package or the compiled part is
            missing, the model has no such part, a layer can't be folded or none can
            have the form, ``out`` can't be written, the format can't hold the part or
            the form, or the file computes something else.
        CheckpointError: the checkpoint can't be read, or belongs to another model.
    """
    check_option('--format', format, FORMATS)
    check_option('--part', part, PARTS)
    check_option('--form', form, FORMS)
    file_format = FORMATS[format]
    if form not in file_format.forms:
        raise ConfigError(
            f'--format {format} has no operator for --form {form}, and it runs the '
            'dense form faster than slices and additions: leave out --form'
        )
    missing_part = native_code.missing() if form == 'sparse' else None
    if missing_part is not None:
        raise ConfigError(f'--form sparse: {missing_part}')
    folder, name = os.path.split(out)
    if not name:
        raise ConfigError(f'--out {out}: must be the name of a file, not a folder')
    check_new(folder or '.', name)
    missing = [package for package in file_format.needs if find_spec(package) is None]
    if missing:
        raise ConfigError(f'--format {format} needs: pip install {" ".join(missing)}')
    model = load_trained(config, checkpoint, cfg_options).model
    taken = take_part(model, part)
    recorded, *checks = sample_images(taken, RECORDED_SHAPE, *CHECKED_SHAPES)
    with torch.no_grad(), whole_files(folder or '.', name) as unfinished:
        with refusals(f'the {part} of the {type(model).__name__} does not run alone'):
            expected = [taken(images) for images in checks]
        folded = []
        if any(isinstance(layer, ConstructedConvNd) for layer in model.modules()):
            with errors_about(config):
                folded = switch_to_deploy(model, form=form)
        elif form != 'dense':
            raise ConfigError(f'--form {form}: the model has no DCLS layers to fold')
        unroll_pooling(taken)
        with warnings.catch_warnings():
            # About what tracing may lose; the comparison at other sizes shows it.
            warnings.simplefilter('ignore')
            with refusals(f"--format {format} can't hold the {part}"):
                file_format.write(taken, recorded, unfinished / name)
                run = file_format.read(unfinished / name)
            if run is None:
                return f'{out}: {part}, not compared: pip install onnxruntime'
            with refusals(
                f'the {format} file does not run at sizes other than the recorded one'
            ):
                found = [run(images) for images in checks]
        difference = max(map(largest_difference, found, expected))
        check_difference(
            difference, f'the {format} file, run at sizes other than the recorded one,'
        )
    return (
        f'{out}: {part} as {format}; differs from the model by {difference:.2g} of the '
        'largest output' + _need(folded)
    )


def _need(folded: list[Folded]) -> str:
    sparse = sum(layer.form == 'sparse' for layer in folded)
    if not sparse:
        return ''
    return (
        f'; {sparse} of {len(folded)} folded layers are sparse, so import dcls_mm '
        'before loading it'
    )


def _export(part: Part, images: Tensor) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    return torch.export.export(
        part, (images,), dynamic_shapes=({0: free, 2: free, 3: free},)
    )


def _write_program(part: Part, images: Tensor, path: Path) -> None:
    torch.export.save(_export(part, images), path)


def _read_program(path: Path) -> Callable[[Tensor], Outputs]:
    return torch.export.load(path).module()


def _write_script(part: Part, images: Tensor, path: Path) -> None:
    torch.jit.save(torch.jit.trace(part, images, check_trace=False), str(path))


def _write_onnx(part: Part, images: Tensor, path: Path) -> None:
    torch.onnx.export(
        _export(part, images),
        dynamo=True,
        input_names=['images'],
        output_names=part.names(images),
        verbose=False,
    ).save(path, external_data=False)


def _read_onnx(path: Path) -> Callable[[Tensor], Outputs] | None:
    if find_spec('onnxruntime') is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )

    def run(images: Tensor) -> Outputs:
        outputs = session.run(None, {'images': images.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return run


FORMATS = {
    'onnx': Format(_write_onnx, _read_onnx, ('onnx', 'onnxscript'), ('dense',)),
    'torchscript': Format(_write_script, lambda path: torch.jit.load(str(path))),
    'torch-export': Format(_write_program, _read_program),
}
