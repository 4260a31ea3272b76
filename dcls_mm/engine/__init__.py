"""What a config names beside models: hooks, optimizer constructors."""
