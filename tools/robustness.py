"""Recompute notebooks and tests under other arithmetic: `python -m tools.robustness [paths]`.

Stored numbers must come out the same on other processors, thread counts and with noise in the last
place of every random draw; and but for the noise, so must the verdicts of the tests. Each line of
the table is one run of both, with strict nbval, under one setting.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tools import ROOT

NOISE = ROOT / "tools" / "noise"
NOTEBOOKS = [ROOT / "notebooks"]
PATHS = [ROOT / "tests", ROOT / "src", ROOT / "README.md", *NOTEBOOKS]
#: Name -> environment of the run. Each was seen to change low bits of some result.
SETTINGS = {
    "as it is": {},
    "2 threads": {"OPENBLAS_NUM_THREADS": "2"},
    "BLAS of Haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "BLAS of Sandybridge": {"OPENBLAS_CORETYPE": "Sandybridge"},
    "BLAS of Nehalem": {"OPENBLAS_CORETYPE": "Nehalem"},
    "BLAS of Prescott": {"OPENBLAS_CORETYPE": "Prescott"},
    "NumPy without AVX2": {"NPY_DISABLE_CPU_FEATURES": "X86_V3"},
    "C library without AVX2, FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX"},
    "oneDNN with SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "XLA": {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
    "noise in every draw": {"PYTHONPATH": str(NOISE)},
}


def main(arguments=None):
    """Run each setting, print the table; return 1 if any run failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.robustness", description=__doc__)
    parser.add_argument("--only", default="", help="settings whose name contains this")
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    failures = {}
    print(f"{'setting':<30} {'seconds':>7} {'passed':>7} {'failed':>7}", flush=True)
    for name, environment in SETTINGS.items():
        if options.only in name:
            # With noise one seed gives other numbers each time, and tests of seeds must fail.
            default = NOTEBOOKS if "PYTHONPATH" in environment else PATHS
            seconds, passed, failed = run(environment, options.paths or default)
            print(f"{name:<30} {seconds:7.0f} {passed:7d} {len(failed):7d}", flush=True)
            if failed or not passed:
                failures[name] = failed
    for name, failed in failures.items():
        print(f"\n{name}:", *(failed or ["nothing was run"]), sep="\n  ")
    return 1 if failures else 0


def run(environment, paths, workers=2):
    """Return (seconds, tests and cells passed, those that failed) in an environment."""
    start = time.perf_counter()
    command = [
        sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-n", str(workers),
        "--dist", "loadscope", "-q", "-rA", "--color=no", "-p", "no:cacheprovider",
        "-m", "not built", "--ignore", "tests/browser", "--ignore", "tests/book/test_robustness.py",
        *map(str, paths),
    ]  # fmt: skip
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    passed = len(re.findall(r"^PASSED ", result.stdout, flags=re.M))
    failed = re.findall(
        r"^(?:FAILED|ERROR) (?:[^\s:]*/)?(.+?)(?: - .*)?$", result.stdout, flags=re.M
    )
    if result.returncode and not failed:
        failed = [line for line in (result.stdout + result.stderr).splitlines() if line][-5:]
    return time.perf_counter() - start, passed, failed


if __name__ == "__main__":
    sys.exit(main())
