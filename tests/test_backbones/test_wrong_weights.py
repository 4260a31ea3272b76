"""Files that don't fit: one sentence says what they are, and its advice works."""

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dcls_mm.backbones import ConvNeXtDCLS
from dcls_mm.checkpoint import ContentError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_conversion'))
from other_convnexts import DEPTHS, DIMS, PACKAGES, random_weights  # noqa: E402

PLAIN = dict(type='Conv2d', kernel_size=3)
LEARNED = dict(type='DCLSConv2d', kernel_count=9, dilated_kernel_size=5)
LOCAL = dict(LEARNED, local_size=3)
REASONS = (
    'make kernel_count',
    'equal to its extent',
    'local_size must be at least',
    'branch_norms',
)

# Arguments of a backbone, each with few values, so that some often agree.
ARGUMENTS = st.fixed_dictionaries(
    dict(
        arch=st.sampled_from(
            [
                dict(depths=(1, 2), dims=(4, 8)),
                dict(depths=(1, 1), dims=(4, 8)),
                dict(depths=(1, 2), dims=(4, 6)),
                dict(depths=(1, 2, 1), dims=(4, 8, 8)),
            ]
        ),
        depthwise_cfg=st.sampled_from(
            [
                *(PLAIN, dict(PLAIN, kernel_size=5)),
                *(LEARNED, dict(LEARNED, kernel_count=4)),
                *(
                    LOCAL,
                    dict(LOCAL, local_size=(3, 1)),
                    dict(LOCAL, branch_norms=True),
                ),
            ]
        ),
        grn=st.booleans(),
        layer_scale_init_value=st.sampled_from([0.0, 1.0]),
        in_channels=st.sampled_from([3, 4]),
    )
)
SLOWLY = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def build(arguments, path=None) -> ConvNeXtDCLS:
    stages = len(arguments['arch']['dims'])
    init_cfg = dict(type='Pretrained', checkpoint=str(path)) if path else None
    backbone = ConvNeXtDCLS(**arguments, out_indices=range(stages), init_cfg=init_cfg)
    backbone.init_weights()
    return backbone


def refusal(call) -> str | None:
    """Return the message with which a call fails, which is one line, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            call()
    except ContentError as error:
        message = str(error)
        assert '\n' not in message and 'weights.pth' in message
        return message
    return None


@given(ARGUMENTS, ARGUMENTS)
@SLOWLY
def test_the_advice_loads_the_file(tmp_path, of_file, of_backbone):
    path = tmp_path / 'weights.pth'
    torch.save(build(of_file).state_dict(), path)
    message = refusal(lambda: build(of_backbone, path))
    if message is None:
        shown = dict(of_backbone, depthwise_cfg=None), dict(of_file, depthwise_cfg=None)
        bare = [{**d, 'layer_scale_init_value': 0} for d in shown]
        assert bare[0] == bare[1]
        return
    if 'give the backbone ' in message:
        arguments = message.split('give the backbone ')[1]
        of_backbone = {**of_backbone, **eval(f'dict({arguments})')}
        message = refusal(lambda: build(of_backbone, path))
    if message is not None:  # what the layer explains: elements, or a local branch
        assert any(reason in message for reason in REASONS)
        of_backbone['depthwise_cfg'] = of_file['depthwise_cfg']
        assert refusal(lambda: build(of_backbone, path)) is None


@given(st.data())
@SLOWLY
def test_a_mixture_of_two_packages(tmp_path, data):
    names = data.draw(st.lists(st.sampled_from([*PACKAGES]), min_size=2, max_size=2))
    forms, packages = zip(*(PACKAGES[name] for name in names))
    first, second = (random_weights(p, bool(p.v2), torch.float32) for p in packages)
    inner = [key for key in second if key.count('.') > 2 and key not in first]
    if forms[0] == forms[1] or not inner:  # DINOv3 has the original's keys
        return
    added = data.draw(st.lists(st.sampled_from(inner), min_size=1, unique=True))
    kept = data.draw(st.sets(st.sampled_from([*first]), min_size=len(first) // 2))
    mixed = {key: first[key] for key in kept} | {key: second[key] for key in added}
    torch.save(mixed, tmp_path / 'weights.pth')
    arguments = dict(arch=dict(depths=DEPTHS, dims=DIMS), depthwise_cfg=PLAIN)
    assert refusal(lambda: build(arguments, tmp_path / 'weights.pth')) is not None


@given(st.data())
@SLOWLY
def test_a_file_that_lacks_something(tmp_path, data):
    name = data.draw(st.sampled_from([*PACKAGES]))
    _, package = PACKAGES[name]
    weights = random_weights(package, bool(package.v2), torch.float32)
    inner = [key for key in weights if 'stem' in key or key.count('.') > 2]
    lost = data.draw(st.sets(st.sampled_from(inner), min_size=1))
    torch.save(
        {k: v for k, v in weights.items() if k not in lost}, tmp_path / 'weights.pth'
    )
    arguments = dict(
        arch=dict(depths=DEPTHS, dims=DIMS),
        depthwise_cfg=dict(PLAIN, kernel_size=7),
        grn=bool(package.v2),
        layer_scale_init_value=float(not package.v2),
    )
    assert refusal(lambda: build(arguments, tmp_path / 'weights.pth')) is not None


@pytest.mark.parametrize(
    ('arguments', 'others', 'message'),
    [
        (
            dict(arch='atto', grn=True, layer_scale_init_value=0),
            dict(arch='femto'),
            'is a ConvNeXt-V2 of depths 2, 2, 6, 2 and dims 40, 80, 160, 320 with '
            "plain 7x7 kernels: give the backbone arch='atto', grn=True, "
            'layer_scale_init_value=0$',
        ),
        (
            dict(arch='atto', depthwise_cfg=dict(LEARNED, interpolation='gauss')),
            dict(arch='atto'),
            'is a ConvNeXt-dcls of .* with 9 elements per kernel: give the backbone '
            r"depthwise_cfg=dict\(type='DCLSConv2d', kernel_count=9, "
            r"dilated_kernel_size=\(5, 5\), interpolation='gauss'\)$",
        ),
        (
            dict(arch='atto'),
            dict(arch='atto', depthwise_cfg=dict(LEARNED, dilated_kernel_size=17)),
            'has the 7x7 kernel of a plain convolution; .*: make kernel_count 49',
        ),
    ],
)
def test_what_the_sentences_say(tmp_path, arguments, others, message):
    path = tmp_path / 'weights.pth'
    plain = dict(depthwise_cfg=dict(type='Conv2d', kernel_size=7))
    torch.save(ConvNeXtDCLS(**{**plain, **arguments}).state_dict(), path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(ContentError, match=message):
        ConvNeXtDCLS(**{**plain, **others}, init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda key: {key('bias'): None}, 'missing: stages.0.0.dwconv.bias'),
        (
            lambda key: {key('weight'): torch.ones(4, 4, 3, 3)},
            r'of another shape: stages.0.0.dwconv.weight \(4, 4, 3, 3\) for',
        ),
    ],
)
def test_plain_kernels_start_no_more_than_the_kernels(tmp_path, change, message):
    arguments = dict(arch=dict(depths=(1, 2), dims=(4, 8)), depthwise_cfg=PLAIN)
    weights = build(arguments).state_dict()
    weights |= change('stages.0.0.dwconv.{}'.format)
    weights = {key: value for key, value in weights.items() if value is not None}
    torch.save(weights, tmp_path / 'weights.pth')
    arguments['depthwise_cfg'] = LEARNED
    said = refusal(lambda: build(arguments, tmp_path / 'weights.pth'))
    assert said is not None and re.search(message, said), said
