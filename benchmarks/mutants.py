"""How many small faults in gradutils the tests notice: `python -m benchmarks.mutants [modules]`.

Faults are drawn at random among all that cosmic-ray can make (an operator, a number, a comparison
changed), one at a time, in a copy of the repository; then the tests of that module run. What they
let through is printed, to be read: some faults change nothing that can be seen.
"""

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from tools import ROOT

MODULES = sorted(path.stem for path in (ROOT / "src/gradutils").glob("*.py"))[1:]
#: Tests besides tests/package/test_<module>.py that hold a module to its word.
ALSO = {
    "__main__": ["main"],
    "_checks": ["networks", "datasets", "initializers", "plots", "theory"],
    "_keras": ["house"],
    "activations": ["theory"],
    "checks": ["diagnosis"],
    "networks": ["normalizations"],
}


def main(arguments=None):
    """Mutate the modules that are named, or all; print the survivors and the shares."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES, help="default: all of gradutils")
    parser.add_argument("--count", type=int, default=20, help="faults in each module")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        import cosmic_ray  # noqa: F401
    except ImportError:
        sys.exit(f"cosmic-ray is needed. Get it with: {sys.executable} -m pip install cosmic-ray")
    killed, made = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        subprocess.run(["git", "clone", "--quiet", ROOT, copy], check=True)
        for module in tqdm(options.modules):
            killed[module], made[module] = attack(copy, module, options.count, options.seed)
    for module, count in made.items():
        print(f"{module:16} {killed[module]:4d} of {count:4d} noticed")
    print(f"{'together':16} {sum(killed.values()) / sum(made.values()):.1%}")


def attack(copy, module, count, seed):
    """Return (faults noticed, faults made) in one module of a copy of the repository."""
    from cosmic_ray.work_db import use_db

    session, config = copy / "session.sqlite", copy / "session.toml"
    session.unlink(missing_ok=True)
    tests = [f"tests/package/test_{name}.py" for name in (module, *ALSO.get(module, []))]
    command = [
        "env", f"PYTHONPATH={copy / 'src'}", "PYTHONDONTWRITEBYTECODE=1", "OPENBLAS_NUM_THREADS=1",
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
        f"src/gradutils/{module}.py", *(name for name in tests if (copy / name).exists()),
    ]  # fmt: skip
    if subprocess.run(command, cwd=copy, capture_output=True).returncode:
        raise RuntimeError(f"the tests of {module} fail without any fault")
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "src/gradutils/{module}.py"\ntimeout = 600.0\n'
        f"excluded-modules = []\ntest-command = {shlex.join(command)!r}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )
    run("cosmic-ray", "init", config, session, cwd=copy)
    with use_db(str(session)) as work:
        items = sorted(work.work_items, key=str)
        work.clear()
        chosen = random.Random(f"{module} {seed}").sample(items, min(count, len(items)))
        work.add_work_items(chosen)
    run("cosmic-ray", "exec", config, session, cwd=copy)
    print(run("cr-report", "--show-diff", "--surviving-only", session, cwd=copy))
    with use_db(str(session)) as work:
        outcomes = [str(result.test_outcome).lower() for _, result in work.results]
    return sum("survived" not in outcome for outcome in outcomes), len(outcomes)


def run(tool, *arguments, cwd):
    """Run one of cosmic-ray's programs; return what it prints."""
    program = Path(sys.executable).with_name(tool)
    result = subprocess.run(
        [program, *arguments], cwd=cwd, stdout=subprocess.PIPE, text=True, check=True
    )
    return result.stdout


if __name__ == "__main__":
    main()
