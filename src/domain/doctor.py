"""Judge a machine: each rule turns facts into a finding with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from glm3.domain.ascend_doctor import ASCEND_RUNTIME_ADVICE, judge_ascend
from glm3.domain.finding import Finding, Status
from glm3.domain.host import HostFacts, RuntimeFacts
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes

__all__ = ["judge_host", "judge_runtime"]

GB = 10**9
CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "neon",
    "i8mm",
    "bf16",
)
"""Those that matrix kernels can use, by the names of Linux's ``/proc/cpuinfo``."""


def judge_host(host: HostFacts) -> list[Finding]:
    """Return a finding for everything that can be judged without starting MindSpore."""
    return [
        *_judge_packages(host),
        *_judge_hardware(host),
        *_judge_environment(host),
        *judge_ascend(host),
    ]


def judge_runtime(runtime: RuntimeFacts, host: HostFacts) -> list[Finding]:
    """Return the findings of MindSpore's own check and of its bfloat16 conversion."""
    if not runtime.passed:
        return [Finding("run_check", Status.FAIL, _failure(runtime), _runtime_advice(runtime, host))]
    check = Finding("run_check", Status.OK, f"passed on {runtime.target}")
    if runtime.bfloat16:
        return [check, Finding("bfloat16", Status.OK, "numbers convert to numpy and back")]
    return [
        check,
        Finding(
            "bfloat16",
            Status.FAIL,
            runtime.error or "conversion to numpy failed",
            "bfloat16 checkpoints cannot be used; most often numpy 2 is the cause: pip install 'numpy<2'",
        ),
    ]


def _failure(runtime: RuntimeFacts) -> str:
    text = runtime.error or runtime.run_check or "no output"
    return f"failed on {runtime.target}: {text.strip().splitlines()[-1]}"


def _runtime_advice(runtime: RuntimeFacts, host: HostFacts) -> str:
    if host.packages.get("mindspore") is None:
        return "install it: pip install 'mindspore==2.10.0'"
    if runtime.target == "CPU":
        return (
            "read the whole message: "
            "python -c \"import mindspore; mindspore.set_device('CPU'); mindspore.run_check()\""
        )
    return ASCEND_RUNTIME_ADVICE


def _judge_packages(host: HostFacts) -> Iterator[Finding]:
    python = ".".join(map(str, host.python))
    if host.python[:2] == (3, 11):
        yield Finding("python", Status.OK, f"{python} on {host.system}")
    else:
        yield Finding(
            "python", Status.FAIL, python, "install Python 3.11: MindSpore and this program need it"
        )
    yield Finding("glm3", Status.OK, host.packages.get("glm3") or "run from source")

    mindspore = host.packages.get("mindspore")
    if mindspore is None:
        yield Finding("mindspore", Status.FAIL, "not installed", "pip install 'mindspore==2.10.0'")
    elif mindspore.startswith("2.10."):
        yield Finding("mindspore", Status.OK, mindspore)
    else:
        yield Finding(
            "mindspore",
            Status.WARN,
            mindspore,
            "this program is tested with 2.10.0: pip install 'mindspore==2.10.0'",
        )

    numpy = host.packages.get("numpy")
    if numpy is None:
        yield Finding("numpy", Status.FAIL, "not installed", "pip install 'numpy<2'")
    elif _major(numpy) >= 2:
        yield Finding(
            "numpy",
            Status.FAIL,
            numpy,
            "MindSpore's native part is built for numpy 1: with numpy 2 it prints 'Numpy init failed' and "
            "bfloat16 cannot be converted. pip install 'numpy<2'",
        )
    else:
        yield Finding("numpy", Status.OK, numpy)

    safetensors = host.packages.get("safetensors")
    if safetensors is not None and _version(safetensors) >= (0, 8):
        yield Finding(
            "safetensors",
            Status.WARN,
            safetensors,
            "0.8 writes arrays that are not contiguous wrongly, and MindSpore hands it such arrays. "
            "pip install 'safetensors<0.8'",
        )
    else:
        yield Finding("safetensors", Status.OK, safetensors or "not installed")
    torch = host.packages.get("torch")
    yield Finding(
        "torch",
        Status.OK,
        torch or "not installed; only reading .bin and .pth files needs it: pip install 'glm3[torch]'",
    )


def _judge_hardware(host: HostFacts) -> Iterator[Finding]:
    features = [name for name in CPU_FEATURES if name in host.cpu_features]
    yield Finding("cpu", Status.OK, f"{host.cpu_model} ({', '.join(features) or 'no vector features known'})")
    yield Finding("cores", Status.OK, str(host.cores))

    parameters = sum(prod(shape) for shape in parameter_shapes(ModelConfig()).values())
    half, single = 2 * parameters / GB, 4 * parameters / GB
    available = host.memory_available / GB
    memory = f"{available:.1f} GB available of {host.memory_total / GB:.1f} GB"
    need = f"ChatGLM3-6B's weights alone take {half:.1f} GB as float16 and {single:.1f} GB as float32"
    if available < 1:
        yield Finding(
            "memory", Status.WARN, memory, "close other programs; the embedded model needs about 1 GB"
        )
    elif available < single:
        yield Finding("memory", Status.WARN, memory, need)
    else:
        yield Finding("memory", Status.OK, memory)

    free = f"{host.download_free / GB:.1f} GB free for downloads in {host.download_folder}"
    if host.download_free < half * GB:
        advice = (
            f"ChatGLM3-6B takes {half:.1f} GB: free some space, or set CHECKPOINT_DOWNLOAD_FOLDER to a "
            "folder on another disk"
        )
        yield Finding("disk", Status.WARN, free, advice)
    else:
        yield Finding("disk", Status.OK, free)

    if host.compiler is None:
        yield Finding(
            "compiler",
            Status.WARN,
            "no C++ compiler found",
            "install g++, or clang++ and libomp, or set CXX; without one only stock kernels are available",
        )
    else:
        yield Finding("compiler", Status.OK, f"{host.compiler.path}: {host.compiler.version}")
    yield _judge_kernel_cache(host)


def _judge_kernel_cache(host: HostFacts) -> Finding:
    cache = host.kernel_cache
    found = f"{cache.files} files, {cache.nbytes / 10**6:.1f} MB" if cache.files else "empty"
    found = f"{cache.path}: {found}, {host.cache_free / GB:.1f} GB free"
    if host.cache_free < GB / 10:
        advice = (
            "compiled kernels need some MB: free some space, or set GLM3_CACHE to a folder on another disk"
        )
        return Finding("kernel cache", Status.WARN, found, advice)
    return Finding("kernel cache", Status.OK, found)


def _judge_environment(host: HostFacts) -> Iterator[Finding]:
    environment = host.environment
    spin = environment.get("GOMP_SPINCOUNT")
    usual = "not set: this program uses 1000, which keeps OpenMP's idle threads off MindSpore's cores"
    yield Finding("GOMP_SPINCOUNT", Status.OK, spin or usual)
    if environment.get("MS_COMPILER_CACHE_ENABLE", "0") not in ("", "0"):
        yield Finding(
            "MS_COMPILER_CACHE_ENABLE",
            Status.WARN,
            environment["MS_COMPILER_CACHE_ENABLE"],
            "MindSpore's compile cache can run the graph of an earlier program: "
            "unset MS_COMPILER_CACHE_ENABLE",
        )
    offline = environment.get("GLM3_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    yield Finding(
        "offline",
        Status.OK,
        "the network is never touched (GLM3_OFFLINE)"
        if offline
        else "downloads are allowed; GLM3_OFFLINE=1 forbids them",
    )


def _major(version: str) -> int:
    return _version(version)[0]


def _version(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("+")[0].split(".")[:2]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits or 0))
    return tuple(numbers)
