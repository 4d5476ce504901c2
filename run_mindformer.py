#!/usr/bin/env python
"""The model card's command line: the same as ``glm3 run``."""

import sys

from glm3.entrypoints.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
