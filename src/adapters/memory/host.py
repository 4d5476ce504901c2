"""A machine made of the facts it is given: a healthy one with CPU only, unless told otherwise."""

from __future__ import annotations

from attrs import field, frozen

from glm3.domain.host import CompilerFacts, HostFacts, KernelCacheFacts, RuntimeFacts

__all__ = ["FakeHost", "healthy_facts"]


def healthy_facts() -> HostFacts:
    """Return the facts of a machine on which every finding is OK."""
    return HostFacts(
        system="Linux 6.1 x86_64",
        python=(3, 11, 9),
        packages={
            "glm3": "0.1.0",
            "mindspore": "2.10.0",
            "numpy": "1.26.4",
            "safetensors": "0.7.0",
            "torch": None,
        },
        cpu_model="Test CPU",
        cpu_features=frozenset({"avx2", "avx512f", "avx512_vnni"}),
        cores=8,
        memory_total=64 * 10**9,
        memory_available=48 * 10**9,
        cache_folder="/home/someone/.cache/glm3",
        cache_free=100 * 10**9,
        download_folder="checkpoint_download",
        download_free=100 * 10**9,
        kernel_cache=KernelCacheFacts("/home/someone/.cache/glm3/kernels"),
        compiler=CompilerFacts("/usr/bin/c++", "c++ 12.2.0"),
    )


@frozen
class FakeHost:
    """Answers with ``host_facts``; MindSpore's self-test ends as ``passed`` and ``bfloat16`` say."""

    host_facts: HostFacts = field(factory=healthy_facts)
    passed: bool = True
    bfloat16: bool = True
    error: str | None = None

    def facts(self) -> HostFacts:
        """See :class:`glm3.domain.ports.host.Host`."""
        return self.host_facts

    def try_runtime(self, target: str) -> RuntimeFacts:
        """See :class:`glm3.domain.ports.host.Host`."""
        return RuntimeFacts(target=target, passed=self.passed, bfloat16=self.bfloat16, error=self.error)
