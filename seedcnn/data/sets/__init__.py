"""The data sets: one module each for finding, reading and checking it, and ``named`` for all of them by name."""
