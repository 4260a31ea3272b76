"""What a state_dict is that no ConvNeXt format fits, in one sentence."""

import re
from collections.abc import Mapping

from torch import Tensor

from .._listing import listing
from .convnext_formats import FORMATS
from .recognition import matches, prefixes_in, recognise
from .state_dicts import SHOWN_KEYS, check_state_dict

# Variants of a format that ConvNeXtDCLS can't be, by keys that the format does not have
# or by biases that are missing.
_VARIANTS = {
    ('timm', 'unknown'): (
        r'stem\.[23]\.',
        "is of a timm variant with overlapping convolutions in its stem ('_ols')",
    ),
    ('timm', 'bare'): (
        r'stem\.1\.bias',
        "is of a timm variant with RMS norms ('_rms')",
    ),
}

# Other files, by what one of their keys has.
_OTHERS = {
    r'\.kernel$|^mask_token$': 'a pre-training of ConvNeXt-V2 by sparse convolutions '
    '(FCMAE), whose encoder is published with dense ones',
    r'relative_position_bias_table': 'a Swin Transformer',
    r'token_mixer': 'a MetaFormer, such as ConvFormer, CAFormer or FastViT',
    r'(^|\.)(cls_token|blocks\.\d+\.attn\.qkv\.weight)$': 'a ViT',
    r'(^|\.)layer[1-4]\.\d+\.conv[12]\.weight$': 'a ResNet',
    r'(^|\.)(_?conv_stem|features\.\d+\.conv\.|_depthwise_conv)': 'an EfficientNet or '
    'a MobileNet',
}


def why_not(state_dict: Mapping[str, Tensor], release: str | None = None) -> str:
    """Say why :func:`recognise` found nothing, what the file is, and what loads it.

    Args:
        state_dict: as for :func:`recognise`, which returned None.
        release: the only format that was tried.

    Returns:
        A sentence that begins with 'state_dict'.
    """
    check_state_dict(state_dict)
    best = matches(state_dict, release)[0]
    found = recognise(state_dict) if release is not None else None
    if found:
        way = f'give release={found.name!r}'
        if found.name == 'dcls':
            way = 'ConvNeXtDCLS loads it as it is'
        return (
            f'state_dict is not of {FORMATS[release].title}, but of '
            f'{found.form.title}: {way}'
        )
    inside = prefixes_in(state_dict)
    if inside:
        said = ', or '.join(
            f'prefix={prefix!r} for those of {match.form.title}'
            for prefix, match in inside.items()
        )
        return f'state_dict is of a model around a ConvNeXt: give {said}'
    if len(best.unknown) <= len(state_dict) // 2 and state_dict:
        return f'state_dict {_nearly(best)}'
    for pattern, name in _OTHERS.items():
        shown = [key for key in state_dict if re.search(pattern, key)]
        if shown:
            return (
                f'state_dict is not of a ConvNeXt but looks like {name}, by its '
                f'{shown[0]}: a backbone of its own kind loads it, and '
                'ReplacedConvBackbone puts other convolutions into that'
            )
    titles = [form.title for form in FORMATS.values()]
    wanted = FORMATS[release].title if release else f'any of {", ".join(titles)}'
    return (
        f'state_dict is not of a ConvNeXt with the keys of {wanted}: it has '
        f'{listing(state_dict, SHOWN_KEYS) or "no keys"}'
    )


def _nearly(match) -> str:
    """Say what is too much or missing in a state_dict that almost fits a format."""
    absent = match.absent()
    weights = {key.replace('.weight', '.bias') for key in match.places}
    bare = [key for key in absent if key in weights]  # biases whose weights are there
    for (name, kind), (pattern, sentence) in _VARIANTS.items():
        keys = match.unknown if kind == 'unknown' else bare
        if name == match.name and any(re.match(pattern, key) for key in keys):
            return f'{sentence}, which ConvNeXtDCLS does not have'
    problems = [
        f'{what} {listing(keys, SHOWN_KEYS)}'
        for what, keys in (('has no', match.unknown), ('needs', absent))
        if keys
    ]
    return f'is not quite of {match.form.title}, which {" and ".join(problems)}'
