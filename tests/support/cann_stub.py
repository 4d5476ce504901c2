"""Stand-in CANN libraries, with which MindSpore's Ascend compiler runs on a machine without Ascend.

MindSpore's wheel carries its Ascend plug-in; what the plug-in lacks elsewhere is CANN. Here every function
it asks for returns 0. That is enough for graphs, parallel plans and strategy files, not for computing.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = (
    *("graph", "ge_runner", "ascendcl", "msprofiler", "hccl", "runtime", "platform", "c_sec", "nnopbase"),
    *("ascend_hal", "opapi", "cust_opapi", "aclnn_math", "aclnn_ops_infer", "aclnn_ops_train"),
    *("ascendcl_impl", "acl_op_compiler", "acl_tdt_channel", "tdt_channel"),
)
SYSTEM = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "ld-linux-x86-64.so.2")
# The plug-in writes into this object while it is loaded, so that a 0 is not enough.
STATUS_FACTORY = """
#include <cstdint>
#include <map>
#include <string>
namespace ge {
class StatusFactory {
 public:
  static StatusFactory *Instance();
  std::map<uint32_t, std::string> texts;
  char room[256];
};
StatusFactory *StatusFactory::Instance() {
  static auto *only = new StatusFactory();
  return only;
}
}
"""


def plugin() -> Path | None:
    """Return MindSpore's Ascend plug-in, None where it cannot be loaded with stand-ins."""
    spec = find_spec("mindspore")
    if spec is None or spec.origin is None or platform.machine() != "x86_64":
        return None
    library = Path(spec.origin).parent / "lib/plugin/libmindspore_ascend.so.2"
    tools = all(shutil.which(tool) for tool in ("gcc", "g++", "nm"))
    return library if library.exists() and tools else None


def build_stub(folder: Path) -> dict[str, str]:
    """Write the libraries below ``folder``; return the environment in which MindSpore finds them."""
    found = plugin()
    assert found is not None
    own = found.parents[1]
    plugins = [found, found.with_name("libmindspore_ops_ascend.so"), *(found.parent / "ascend").rglob("*.so")]
    system = [Path("/lib/x86_64-linux-gnu", name) for name in SYSTEM]
    present = [*own.glob("*.so*"), *found.parent.glob("*.so*"), *plugins, *filter(Path.exists, system)]
    wanted = _symbols(plugins, "--undefined-only", "U") - _symbols(present, "--defined-only")
    home = folder / "cann/latest"
    libraries = home / "lib64"
    libraries.mkdir(parents=True)
    (home / "opp").mkdir()
    first = libraries / f"lib{LIBRARIES[0]}.so"
    _compile(folder, first, {name for name in wanted if not name.startswith(("Py", "_Py"))})
    for name in LIBRARIES[1:]:
        (libraries / f"lib{name}.so").symlink_to(first.name)
    return {
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": str(_hccl_package(folder / "python")),
        "ASCEND_OPP_PATH": str(home / "opp"),
        **dict.fromkeys(("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_CUSTOM_PATH"), str(home)),
        "MS_SIMULATION_LEVEL": "0",
    }


def _symbols(libraries: list[Path], which: str, kind: str | None = None) -> set[str]:
    output = subprocess.run(
        ["nm", "-D", which, *libraries], capture_output=True, text=True, check=False
    ).stdout
    lines = (line.split() for line in output.splitlines())
    return {
        fields[-1].partition("@")[0]
        for fields in lines
        if len(fields) >= 2 and (kind is None or fields[-2] == kind)
    }


def _compile(folder: Path, library: Path, names: set[str]) -> None:
    status = folder / "status.cpp"
    status.write_text(STATUS_FACTORY)
    real = folder / "status.o"
    flags = ["-D_GLIBCXX_USE_CXX11_ABI=0", "-fPIC", "-O1", "-c"]
    subprocess.run(["g++", *flags, status, "-o", real], check=True)
    defined = subprocess.run(["nm", "--defined-only", real], capture_output=True, text=True, check=True)
    names = names - {line.split()[-1] for line in defined.stdout.splitlines() if line}
    labels = "".join(f".globl {name}\n.type {name},@function\n{name}:\n" for name in sorted(names))
    source = folder / "functions.S"
    source.write_text(
        f'.text\n{labels}xor %eax,%eax\nxor %edx,%edx\nret\n.section .note.GNU-stack,"",@progbits\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, real, "-lstdc++"], check=True)


def _hccl_package(folder: Path) -> Path:
    """Write the Python package whose version MindSpore asks for."""
    package = folder / "hccl"
    (package / "manage").mkdir(parents=True)
    for module in (package / "__init__.py", package / "manage/__init__.py", package / "manage/api.py"):
        module.touch()
    (package / "sys_version.py").write_text("__sys_version__ = '9.0.0'\n")
    return folder
