"""What of a trained model runs without this package, and the files that hold it."""
