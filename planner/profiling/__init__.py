"""The `profile` commands: read, write, draw, compare and apply profiles."""
