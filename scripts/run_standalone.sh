#!/usr/bin/env bash
# See docs/scale-out.md. PYTHON names the interpreter of the environment that glm3 is installed in.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
exec "${PYTHON:-python}" -m glm3 launch-script standalone "$root" "$@"
