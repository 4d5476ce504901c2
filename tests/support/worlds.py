"""Jobs of several ranks on which a test runs a function: in this process, in threads, in real processes."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, Listener
from typing import Any

from glm3.adapters.memory.single_process_communicator import SingleProcessCommunicator
from glm3.adapters.memory.thread_communicator import ThreadWorld
from support import rank_process

Body = Callable[..., Any]
START_SECONDS = 120.0


class OneRank:
    """The world of the single process."""

    size = 1

    def run(self, body: Body, *arguments: Any) -> list[Any]:
        return [body(SingleProcessCommunicator(), *arguments)]

    def close(self) -> None:
        pass


class Threads:
    """A rank in each of ``size`` threads."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, body: Body, *arguments: Any) -> list[Any]:
        return ThreadWorld(self.size).run(lambda communicator: body(communicator, *arguments))

    def close(self) -> None:
        pass


class Processes:
    """Real processes that have joined one of MindSpore's jobs and run what they are told, until closed.

    A body must be a function of a module's top level; it is found again by its file and name.
    """

    def __init__(self, size: int, timeout: float = 60.0) -> None:
        self.size = size
        self.key = secrets.token_bytes(16)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ends: list[Connection] = []
        environment = {
            **os.environ,
            **job_environment(size),
            "OMP_NUM_THREADS": "1",
            "GLM3_TEST_KEY": self.key.hex(),
            "GLM3_TEST_TIMEOUT": str(timeout),
        }
        with Listener(("127.0.0.1", 0), authkey=self.key) as listener:
            listener._listener._socket.settimeout(START_SECONDS)  # type: ignore[attr-defined]
            command = [sys.executable, str(rank_process.__file__), str(listener.address[1])]
            try:
                self._start(command, {**environment, "MS_ROLE": "MS_SCHED"})
                for rank in range(size):
                    role = {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank), "RANK_ID": str(rank)}
                    self._start(command, {**environment, **role})
                ends = [listener.accept() for _ in range(size)]
                ranked = sorted(((end.recv(), end) for end in ends), key=lambda pair: pair[0])
                self.ends = [end for _, end in ranked]
            except BaseException:
                self.kill()
                raise

    def _start(self, command: list[str], environment: dict[str, str]) -> None:
        self.processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))

    def begin(self, body: Body, *arguments: Any) -> None:
        """Tell every rank to run ``body(communicator, *arguments)``."""
        module = sys.modules[body.__module__]
        for end in self.ends:
            end.send((str(module.__file__), body.__name__, arguments))

    def results(self, ranks: list[int] | None = None, seconds: float = 120.0) -> list[Any]:
        """Return what the ranks returned; raise what one of them raised."""
        results = []
        for rank in range(self.size) if ranks is None else ranks:
            assert self.ends[rank].poll(seconds), f"rank {rank} does not answer"
            results.append(self.ends[rank].recv())
        for rank, (trouble, _) in enumerate(results):
            assert trouble is None, f"rank {rank}: {trouble}"
        return [value for _, value in results]

    def run(self, body: Body, *arguments: Any) -> list[Any]:
        self.begin(body, *arguments)
        return self.results()

    def close(self) -> None:
        """Let every process end by itself, which it must.

        When all is done, a thread of MindSpore 2.10 that receives may still read a connection that is gone
        (seen once: a null pointer in libmindspore_cluster.so).
        """
        for end in self.ends:
            end.send(None)
            end.close()
        try:
            codes = [process.wait(timeout=60) for process in self.processes]
        finally:
            self.kill()
        assert set(codes) <= {0, -signal.SIGSEGV}, codes

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def job_environment(size: int) -> dict[str, str]:
    """Return what describes a job of ``size`` ranks on this host to MindSpore, but for the roles."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return {
        "MS_WORKER_NUM": str(size),
        "MS_SCHED_HOST": "127.0.0.1",
        "MS_SCHED_PORT": str(port),
        "RANK_SIZE": str(size),
        "GLOG_v": "4",
    }
