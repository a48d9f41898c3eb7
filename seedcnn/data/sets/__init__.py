"""Data sets by name: how each is found, read and checked."""
