"""The parts of a trained model that run without this package, and their files."""
