"""What a library answers when asked whether the processor it was loaded on has its instructions.

Lesser processors are emulated by QEMU, where an instruction that the processor lacks ends the program.
"""

from __future__ import annotations

import platform
import subprocess
from functools import cache

import pytest

from glm3.adapters.mindspore.kernels.compiler import FLAGS, SOURCES, find_compiler
from support.arm_core import EMULATOR, arm_program
from support.libraries import TARGETS, cpu_flags, kernel_build
from support.packages import require_programs

pytestmark = pytest.mark.slow

CHECK = """
#include "core/processor.h"
extern "C" __attribute__((visibility("default"))) int glm3_runs_here() { return glm3::runs_here(); }
"""
LOADER = """
#include <cstdio>
#include <dlfcn.h>
int main(int, char** arguments) {
  void* library = dlopen(arguments[1], RTLD_NOW);
  if (library == nullptr) return 1;
  std::printf("%d", reinterpret_cast<int (*)()>(dlsym(library, "glm3_runs_here"))());
}
"""
PROGRAM = """
#include <cstdio>
#include "core/processor.h"
int main() { std::printf("%d", glm3::runs_here()); }
"""

# Processors that QEMU knows, and how many of the levels x86-64, -v2 and -v3 each has.
PROCESSORS = {"qemu64": 1, "Nehalem": 2, "Haswell": 3}
LEVELS = {
    "x86-64": 1,
    "x86-64-v2": 2,
    "x86-64-v3": 3,
    "alderlake": 4,
    "skylake-avx512": 4,
    "sapphirerapids": 4,
}

# What Haswell has: the compiler's option and QEMU's name.
HELD = {
    "sse3": "sse3",
    "ssse3": "ssse3",
    "sse4.1": "sse4.1",
    "sse4.2": "sse4.2",
    "popcnt": "popcnt",
    "movbe": "movbe",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
}
# What it lacks: the compiler's option and Linux's name.
LACKED = {
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avxvnni": "avx_vnni",
    "gfni": "gfni",
    "fma4": "fma4",
    "xop": "xop",
    "tbm": "tbm",
}


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """Return what says whether a library runs, on an emulated processor or on this one."""
    if platform.machine() != "x86_64":
        pytest.skip("lesser processors of this kind are not emulated here")
    folder = tmp_path_factory.mktemp("load")
    loader = built(folder / "load.cpp", LOADER, "-ldl", compiler=usual_compiler())

    def ask(library, processor=None):
        emulator = []
        if processor is not None:
            require_programs(("qemu-x86_64",), ("qemu-user",))
            emulator = ["qemu-x86_64", "-cpu", processor]
        done = subprocess.run([*emulator, loader, library], capture_output=True, text=True, check=True)
        return int(done.stdout)

    return ask


@pytest.fixture(scope="module", params=["usual", "clang++"])
def check(request, tmp_path_factory):
    """Return what builds a library that holds nothing but the check."""
    if request.param == "clang++":
        require_programs(("clang++",), ("clang",))
    compiler = usual_compiler() if request.param == "usual" else ("clang++",)
    folder = tmp_path_factory.mktemp("check")
    flags = [flag for flag in FLAGS if flag != "-fopenmp"]
    return cache(lambda option: built(folder / f"{option}.cpp", CHECK, *flags, option, compiler=compiler))


def usual_compiler():
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler on this machine")
    return compiler.command


def built(source, text, *flags, compiler):
    source.write_text(text)
    product = source.with_suffix(".out")
    subprocess.run([*compiler, f"-I{SOURCES}", source, "-o", product, *flags], check=True)
    return product


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("target", LEVELS)
def test_a_library_runs_where_its_level_is(answer, check, target, processor):
    assert answer(check(f"-march={target}"), processor) == (PROCESSORS[processor] >= LEVELS[target])


def test_a_library_for_this_processor_does_not_run_on_the_first_of_its_kind(answer, check):
    assert answer(check("-march=native"), "qemu64") == 0


@pytest.mark.parametrize("target", [target for target in TARGETS if target in LEVELS])
def test_the_kernels_answer_before_anything_else_runs(answer, target):
    library = kernel_build(target).path
    for processor, level in PROCESSORS.items():
        assert answer(library, processor) == (level >= LEVELS[target])


@pytest.mark.parametrize("option", HELD)
def test_a_library_does_not_run_without_any_one_set(answer, check, option):
    library = check(f"-m{option}")
    assert answer(library, "Haswell") == 1
    assert answer(library, f"Haswell,-{HELD[option]}") == 0


@pytest.mark.parametrize("option", LACKED)
def test_newer_sets_are_asked_for_as_the_system_names_them(answer, check, option):
    library = check(f"-m{option}")
    assert answer(library, "Haswell") == 0
    assert answer(library) == (LACKED[option] in cpu_flags())


def test_a_system_that_does_not_save_wide_registers_rules_them_out(answer, check):
    assert answer(check("-mavx"), "Haswell,-xsave") == 0


@pytest.mark.parametrize(
    ("architecture", "answers"),
    [
        ("armv8-a", {"cortex-a57": 1, "cortex-a76": 1}),
        ("armv8.2-a+dotprod", {"cortex-a57": 0, "cortex-a76": 1}),
        ("armv8.2-a+sve", {"cortex-a57": 0, "cortex-a76": 0, "max": 1}),
        ("armv8.2-a+i8mm", {"cortex-a76": 0}),
    ],
)
def test_an_arm_program_runs_where_its_instructions_are(tmp_path, architecture, answers):
    source = tmp_path / "check.cpp"
    source.write_text(PROGRAM)
    program = arm_program(tmp_path, source, architecture)
    found = {}
    for processor in answers:
        command = [EMULATOR, "-cpu", processor, program]
        found[processor] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found == answers
