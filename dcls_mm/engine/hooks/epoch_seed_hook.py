"""A hook that makes a training's random numbers repeatable from any epoch on."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, set_random_seed

from ...checks.arguments import checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_int


class EpochSeedHook(Hook):
    """A hook that seeds each epoch by ``randomness.seed`` and its number.

    mmengine does not restore random states, so a resumed training draws other numbers
    (for drop path, say) than one that was never interrupted. With this hook both draw
    the same, and end with the same weights. Dataloader workers that live longer than an
    epoch keep a state of their own, so the train_dataloader needs
    ``persistent_workers=False`` or ``num_workers=0``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Check the config.

        Raises:
            ConfigError: the loop has no epochs, there is no seed, or the
                train_dataloader's workers are persistent.
        """
        settings = runner.cfg.get('randomness') or {}
        if settings.get('seed') is None:
            raise ConfigError('EpochSeedHook: needs a number as randomness.seed')
        checked(as_int, 'randomness.seed', settings.get('seed'), minimum=0)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                'EpochSeedHook: needs a train_cfg with by_epoch=True, but the loop is '
                f'{type(runner.train_loop).__name__}'
            )
        if runner.train_dataloader.persistent_workers:
            raise ConfigError(
                'EpochSeedHook: needs train_dataloader.persistent_workers=False'
            )

    def before_train_epoch(self, runner) -> None:
        """Seed the random generators of this process."""
        # runner.seed is the checkpoint's after a resume, and includes diff_rank_seed.
        deterministic = runner.cfg.randomness.get('deterministic', False)
        set_random_seed(runner.seed + runner.epoch, deterministic=deterministic)
