"""``python -m glm3`` is the command ``glm3``."""

import sys

from glm3.entrypoints.cli import main

if __name__ == "__main__":
    sys.exit(main())
