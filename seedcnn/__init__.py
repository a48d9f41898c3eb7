"""Convolutional networks that grow from seeds.

Train in the cloud; ship a few seed filters and random seeds; regenerate, verify and run on the device. Importing this
package imports nothing else; each part comes with an extra (see ``pyproject.toml``).
"""

from __future__ import annotations

__all__ = ["__version__"]
__version__ = "0.1.0"
