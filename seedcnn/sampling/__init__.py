"""Reduced sampling: which pictures each epoch sees, and how many. Dissertation, chapter 4."""
