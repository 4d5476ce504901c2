"""What is known about the machine and its runtime, as plain facts without a judgement."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

__all__ = ["AscendFacts", "CompilerFacts", "HostFacts", "KernelCacheFacts", "RuntimeFacts"]


@frozen
class CompilerFacts:
    """A C++ compiler: its path and the first line it says about itself."""

    path: str
    version: str


@frozen
class KernelCacheFacts:
    """The folder of compiled kernels; all zero before the first one."""

    path: str
    files: int = 0
    nbytes: int = 0


@frozen(kw_only=True)
class AscendFacts:
    """Traces of an Ascend accelerator and of CANN, its software.

    ``device_files`` are ``/dev/davinci0`` and so on; ``tbe_modules`` are those of te, tbe and tvm that
    Python can find.
    """

    device_files: tuple[str, ...] = ()
    npu_smi: str | None = None
    driver_version: str | None = None
    toolkit: str | None = None
    toolkit_version: str | None = None
    tbe_modules: frozenset[str] = frozenset()

    @property
    def present(self) -> bool:
        """Whether this machine seems to have an Ascend device at all."""
        return bool(self.device_files or self.npu_smi or self.driver_version)


@frozen(kw_only=True)
class HostFacts:
    """One machine as this process sees it. Sizes are in bytes.

    ``packages`` maps a distribution's name to its version, or to None where it is not installed.
    ``cores`` and the memory respect the limits of a container. ``environment`` holds only the variables
    that matter to MindSpore, CANN and this program.
    """

    system: str
    python: tuple[int, int, int]
    packages: Mapping[str, str | None]
    cpu_model: str
    cpu_features: frozenset[str]
    cores: int
    memory_total: int
    memory_available: int
    cache_folder: str
    cache_free: int
    download_folder: str
    download_free: int
    kernel_cache: KernelCacheFacts
    compiler: CompilerFacts | None = None
    ascend: AscendFacts = field(factory=AscendFacts)
    environment: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class RuntimeFacts:
    """What MindSpore said when it was started on ``target`` (``CPU`` or ``Ascend``).

    ``error`` is why it could not be tried or failed; ``run_check`` is the output of its self-test.
    """

    target: str
    passed: bool
    bfloat16: bool
    run_check: str = ""
    error: str | None = None
