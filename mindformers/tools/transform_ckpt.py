#!/usr/bin/env python
"""The model card's tool for merging and re-slicing checkpoints: the same as ``glm3 merge``."""

import sys

from glm3.entrypoints.cli import main

if __name__ == "__main__":
    sys.exit(main(["merge", *sys.argv[1:]]))
