#!/usr/bin/env python
"""The model card's command line: the same as ``glm3 data format-tool-alpaca``."""

import sys

from glm3.entrypoints.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "format-tool-alpaca", *sys.argv[1:]]))
