"""Any network of timm as a backbone, the published DCLS networks among them."""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from .._listing import listing
from ..checkpoint import ContentError, read_checkpoint
from ..layers.folding import switch_to_deploy
from ..layers.noted import StateDictError
from .pretrained import backbone_state_dict, is_pretrained
from .timm_networks.key_names import NAMES, RenamedKeys

SHOWN_KEYS = 8

# Options that a config has by other means -> these.
FIXED_OPTIONS = {
    **dict.fromkeys(
        ('pretrained', 'checkpoint_path'),
        "weights are loaded by init_cfg=dict(type='Pretrained', checkpoint=...)",
    ),
    **dict.fromkeys(
        ('features_only', 'num_classes'), 'the features are chosen by out_indices'
    ),
    'position_rate': "use optim_wrapper's paramwise_cfg.position_lr_mult",
    'repulsion_after': 'use RepulsionLossHook',
}


class TimmBackbone(BaseModule):
    """A network of timm, such as 'convformer_dcls_s18', without its classifier.

    timm's names of parameters follow the prefix ``timm_model.``, as in mmseg's
    ``TIMMBackbone``. That one renames what is inside, and only mmseg has it. Layers
    that no output depends on are left out.

    Args:
        model_name: a name that timm knows; ``dcls_mm.timm_models`` adds its own.
        out_indices: which of timm's intermediate features to return.
        init_cfg: as in mmengine. ``dict(type='Pretrained', checkpoint=...)`` may have
            the ``prefix`` that the network's keys have in the file. It takes timm's
            names and those of the architecture's own repository, and every key must
            belong to the network.
        options: arguments of timm's network, such as ``drop_path_rate``.

    Raises:
        ImportError: timm is not installed.
        ValueError, TypeError: an argument is invalid.
    """

    init_cfg: dict | None
    is_init: bool

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        init_cfg: dict | None = None,
        **options,
    ) -> None:
        super().__init__(init_cfg)
        for name, remedy in FIXED_OPTIONS.items():
            if name in options:
                raise ValueError(
                    f'{name} must be left out of TimmBackbone, got {options[name]!r}: '
                    f'{remedy}'
                )
        self.model_name = model_name
        network = _create(model_name, options)
        self._known_keys = set(network.state_dict())
        if hasattr(network, 'position_training'):
            # The config's optimizer and hooks say how positions learn.
            network.position_training.detach(network)
        elif (names := NAMES.get(type(network).__name__)) is not None:
            network.register_load_state_dict_pre_hook(RenamedKeys(model_name, names))
        self.out_indices = _prune(network, out_indices)
        self.timm_model = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen features, (batch, channels, height, width) each."""
        features = self.timm_model.forward_intermediates(
            x,
            indices=self.out_indices,
            output_fmt='NCHW',
            intermediates_only=True,
        )
        # mmcv's RoIAlign silently assumes contiguous memory.
        return tuple(feature.contiguous() for feature in features)

    def init_weights(self) -> None:
        """Apply ``init_cfg``; without one, keep the weights that timm initialized.

        As in mmengine, a second call only warns.
        """
        if self.is_init or not is_pretrained(self.init_cfg):
            super().init_weights()
            return
        options: Any = {k: v for k, v in (self.init_cfg or {}).items() if k != 'type'}
        self.load_pretrained(**options)
        self.is_init = True

    def load_pretrained(
        self, checkpoint: str, prefix: str = '', map_location: str = 'cpu'
    ) -> None:
        """Load a file of the network, with or without a classifier.

        Raises:
            ContentError: a ValueError; a key is missing or unknown, a shape differs, or
                the file is of another network.
            CheckpointError: the file can't be read.
        """
        loaded = read_checkpoint(checkpoint, map_location)
        inside = backbone_state_dict(loaded, prefix, checkpoint)
        try:
            missing, unexpected = self.timm_model.load_state_dict(inside, strict=False)
        except StateDictError as error:
            raise ContentError(f'{checkpoint}: {error.reason}') from error
        except RuntimeError as error:  # a line per shape
            reasons = '; '.join(str(error).split('\n\t')[1:][:SHOWN_KEYS])
            raise ContentError(
                f'{checkpoint} does not fit {self.model_name}: {reasons}'
            ) from error
        unknown = [key for key in unexpected if key not in self._known_keys]
        if missing or unknown:
            parts = (('missing', missing), ('not in the model', unknown))
            raise ContentError(
                f'{checkpoint} does not fit {self.model_name}; '
                + '; '.join(f'{w}: {listing(k, SHOWN_KEYS)}' for w, k in parts if k)
                + ". For the file of a whole model, give init_cfg's prefix"
            )
        if unexpected:
            print_log(
                f'{checkpoint}: not used: {listing(unexpected, SHOWN_KEYS)}',
                logger='current',
            )

    def switch_to_deploy(
        self, round_positions: bool = False, form: str = 'dense'
    ) -> None:
        """Replace every DCLS layer with the convolution that it computes.

        Args:
            round_positions, form: see :func:`dcls_mm.layers.switch_to_deploy`.

        Raises:
            ValueError: there is no such layer, or one can't be folded to that form.
        """
        switch_to_deploy(self, round_positions, form)


def _prune(network: Any, out_indices: Sequence[int]) -> list[int]:
    """Remove what the features don't depend on; return their indices, from 0.

    Parameters without gradients would stop distributed training.
    """
    try:
        return network.prune_intermediate_layers(
            list(out_indices), prune_norm=True, prune_head=True
        )
    except (TypeError, AssertionError) as error:
        raise ValueError(
            f"out_indices must be indices of the network's features, got "
            f'{out_indices!r}: {error}'
        ) from error


def _create(model_name: str, options: dict) -> Any:
    """Return timm's network, with its classifier."""
    try:
        import timm

        from .timm_networks import dcls  # noqa: F401, registers the networks
    except ImportError as error:
        raise ImportError(
            f'TimmBackbone {model_name!r} needs timm and torchvision, but {error}; '
            "`pip install 'timm>=1.0.31'` installs both"
        ) from error
    known = isinstance(model_name, str) and timm.is_model(model_name.partition('.')[0])
    if not known:
        raise ValueError(
            'model_name must be a name in timm.list_models(), such as '
            f"'convformer_dcls_s18', got {model_name!r}"
        )
    network = timm.create_model(model_name, **options)
    for method in ('forward_intermediates', 'prune_intermediate_layers'):
        if not hasattr(network, method):
            raise ValueError(
                f'model_name must be of a network with {method}, which '
                f'{model_name!r} ({type(network).__name__}) does not have'
            )
    return network
