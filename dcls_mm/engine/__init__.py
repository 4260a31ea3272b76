"""What a config names besides models: hooks and optimizer constructors."""
