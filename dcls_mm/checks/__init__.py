"""Whether configs, classes and data fit together, told before a training."""
