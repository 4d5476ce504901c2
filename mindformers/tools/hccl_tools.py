#!/usr/bin/env python
"""The model card's command line: the same as ``glm3 hccl generate``."""

import sys

from glm3.entrypoints.cli import main

if __name__ == "__main__":
    sys.exit(main(["hccl", "generate", *sys.argv[1:]]))
