"""The process in which the ranks of a dynamic cluster find each other: ``python -m`` this module.

``MS_ROLE=MS_SCHED`` and MindSpore's other variables must be set.
"""

from __future__ import annotations

from glm3.adapters.mindspore.communicator import serve_as_scheduler

if __name__ == "__main__":
    serve_as_scheduler()
