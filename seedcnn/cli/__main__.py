"""``python -m seedcnn.cli``."""

from __future__ import annotations

import sys

from seedcnn.cli import main

if __name__ == "__main__":
    sys.exit(main())
