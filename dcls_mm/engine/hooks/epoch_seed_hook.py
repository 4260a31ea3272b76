"""A training whose random numbers can be repeated from any epoch on."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, set_random_seed

from ...checks.arguments import checked
from ...checks.errors import ConfigError
from ...functional._arguments import as_int


class EpochSeedHook(Hook):
    """Seeds each epoch by ``randomness.seed`` and its number.

    mmengine does not restore random states: a training that is resumed draws other
    numbers (drop path, say) than one that was never interrupted. With this hook both
    draw the same, and end with the same weights. Workers of dataloaders that live
    longer than an epoch keep a state of their own, so the train_dataloader needs
    ``persistent_workers=False`` or ``num_workers=0``.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Checks the config.

        Raises:
            ConfigError: the loop has no epochs, there is no seed, or the workers of
                the train_dataloader are persistent.
        """
        settings = runner.cfg.get('randomness') or {}
        if settings.get('seed') is None:
            raise ConfigError('EpochSeedHook: needs a number as randomness.seed')
        checked(as_int, 'randomness.seed', settings.get('seed'), minimum=0)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                'EpochSeedHook: needs a train_cfg with by_epoch=True, the loop is a '
                f'{type(runner.train_loop).__name__}'
            )
        if runner.train_dataloader.persistent_workers:
            raise ConfigError(
                'EpochSeedHook: needs train_dataloader.persistent_workers=False'
            )

    def before_train_epoch(self, runner) -> None:
        """Seeds what draws in this process."""
        # That of the checkpoint after a resume; with diff_rank_seed, of this process.
        deterministic = runner.cfg.randomness.get('deterministic', False)
        set_random_seed(runner.seed + runner.epoch, deterministic=deterministic)
