"""The machine this process runs on: ``/proc``, psutil, the compiler, MindSpore in a process of its own."""
