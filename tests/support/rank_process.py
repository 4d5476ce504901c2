"""One rank of :class:`support.worlds.Processes`: ``python rank_process.py PORT``."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from multiprocessing.connection import Client
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> None:
    from glm3.adapters.mindspore.communicator import join_job, serve_as_scheduler

    if os.environ["MS_ROLE"] == "MS_SCHED":
        serve_as_scheduler()
        return
    communicator = join_job(float(os.environ["GLM3_TEST_TIMEOUT"]))
    loaded = {}
    key = bytes.fromhex(os.environ["GLM3_TEST_KEY"])
    with Client(("127.0.0.1", int(sys.argv[1])), authkey=key) as end:
        end.send(communicator.rank)
        while (told := end.recv()) is not None:
            path, name, arguments = told
            try:
                if path not in loaded:
                    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
                    loaded[path] = importlib.util.module_from_spec(spec)
                    sys.modules[spec.name] = loaded[path]
                    spec.loader.exec_module(loaded[path])
                end.send((None, getattr(loaded[path], name)(communicator, *arguments)))
            except Exception:
                end.send((traceback.format_exc(), None))
    communicator.barrier()


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "typings"), str(ROOT / "tests"), str(ROOT)]
    main()
