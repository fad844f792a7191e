"""The rules of the house: what an import loads, one source of dependencies, the wheel."""

import itertools
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repo2docker.app import Repo2Docker

from tools import ROOT

PACKAGE = ROOT / "src" / "gradutils"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
#: Lock -> the extras whose requirements it holds. Torch has one hash for CPUs and one for GPUs.
LOCKS = {
    "requirements.lock": [name for name in EXTRAS if name not in ("backends", "torch")],
    "backends.lock": ["backends"],
}


@pytest.mark.parametrize("imported", ["gradutils", "gradutils.probes, gradutils.diagnosis"])
def test_importing_what_judges_loads_no_framework(imported):
    heavy = ("tensorflow", "torch", "jax", "keras", "matplotlib.pyplot")
    program = f"import sys, {imported}; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")


IMPORTING = """
import importlib
for module in ("trials", "remedies", "monitor"):
    try:
        importlib.import_module(f"gradutils.{module}")
    except ImportError as error:
        print(type(error).__name__, error)
import gradutils.networks
"""


def refusals(**environment):
    """Return what an import of each module that needs Keras is answered with."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORTING], capture_output=True, text=True,
        env=os.environ | environment,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = result.stdout.splitlines()
    assert len(told) == 3, told
    for line in told:
        assert line.startswith(
            "ImportError gradutils.trials, gradutils.remedies and gradutils.monitor need Keras 3 "
            "with one of the backends tensorflow, torch, jax"
        )
    return told


def test_a_backend_of_keras_that_lacks_a_package_is_told_in_words():
    for line in refusals(KERAS_BACKEND="numpy"):  # Keras wants jax for it.
        assert "KERAS_BACKEND" in line and "is 'numpy'" in line


def test_another_backend_of_keras_is_refused_in_words(tmp_path):
    (tmp_path / "keras.py").write_text(
        "class backend:\n    backend = staticmethod(lambda: 'openvino')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])
    for line in refusals(PYTHONPATH=path):
        assert "KERAS_BACKEND" in line and "the backend is 'openvino'" in line


def test_judging_a_model_loads_nothing_that_draws():
    modules = "gradutils.diagnosis, gradutils.monitor"
    program = f"import sys, {modules}; print('gradutils.plots' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


def test_the_wheel_holds_what_the_sources_hold(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.iterdir())).namelist()
    packed = {name for name in names if name.startswith("gradutils/")}
    sources = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*.*")}
    assert packed == {name for name in sources if "__pycache__" not in name}
    assert "gradutils/py.typed" in packed


def test_every_module_is_reachable_from_the_package():
    import gradutils

    files, folders = PACKAGE.glob("[!_]*.py"), PACKAGE.glob("[!_]*/__init__.py")
    assert {*gradutils.__all__} == {p.stem for p in files} | {p.parent.name for p in folders}


def locked(name):
    """Return name -> version of each requirement of a lock, environment markers aside."""
    found = {}
    text = (ROOT / name).read_text("utf-8").replace("\\\n", "")
    for entry in re.split(r"\n(?=\S)", text):
        if not entry.startswith("#"):
            line = entry.split("--hash")[0].strip()
            requirement = Requirement(line)
            assert "--hash=sha256:" in entry, f"no hash: {line}"
            found[canonicalize_name(requirement.name)] = str(requirement.specifier)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_and_no_addresses(name):
    assert len(locked(name)) > 50
    assert all(re.fullmatch(r"==\S+", pin) for pin in locked(name).values())
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    assert "--index-url" not in text and "--find-links" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_meets_every_requirement_of_the_project(name):
    pins, extras = locked(name), [EXTRAS[extra] for extra in LOCKS[name]]
    for line in [*PROJECT["dependencies"], *itertools.chain(*extras)]:
        requirement = Requirement(line)
        pin = pins.get(canonicalize_name(requirement.name), "")
        assert requirement.specifier.contains(pin.lstrip("="), prereleases=True), line


def test_make_locks_the_extras_that_the_main_lock_is_to_hold():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = re.search(r"^EXTRAS := (.*)$", makefile, flags=re.M).group(1).split()
    assert sorted(named) == sorted(LOCKS["requirements.lock"])


def test_binder_reads_the_environment_as_it_is_meant(monkeypatch):
    monkeypatch.chdir(ROOT)
    packs = [pack(base_image="debian") for pack in Repo2Docker().buildpacks]
    pack = next(pack for pack in packs if pack.detect())
    assert (type(pack).__name__, pack.python_version) == ("CondaBuildPack", "3.12")
    # `-e .` needs the repository: nothing is installed before all of it is copied.
    assert pack.get_preassemble_scripts() == [] and pack.get_preassemble_script_files() == {}
    ((_, script),) = pack.get_assemble_scripts()
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "environment.yml"' in script


def test_versions_agree():
    import gradutils

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"] == gradutils.__version__


def test_every_command_in_the_documents_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, flags=re.M))
    documents = [*ROOT.glob("*.md"), *(ROOT / "book").glob("*.md")]
    for path in documents:
        text = path.read_text("utf-8")
        named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)|`make ([a-z-]+)[ `]", text, flags=re.M))
        assert {a or b for a, b in named} <= targets, path.name
    readme = (ROOT / "README.md").read_text("utf-8")
    assert all(f"make {target}" in readme for target in targets - {"help"})
