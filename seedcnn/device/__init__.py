"""The device side: verify a signed bundle, store it in one of two slots, regenerate its weights, test it and run it.

Importing this package imports nothing else. ``updater``, ``slots`` and ``agent`` need numpy only after a bundle has
been verified, and nothing here needs torch.
"""
