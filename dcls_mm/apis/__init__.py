"""What each command of ``tools/`` does, a module a command."""
