"""Become the program of the command line, and die with the process that started it.

Run as a script, before anything else: ``guard.py PARENT PROGRAM ARGUMENT...``. Linux forgets the request at
``fork`` but keeps it over ``exec``, which is why it is made here and not by the parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it died before the request was made
        os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # a command that the user gave
