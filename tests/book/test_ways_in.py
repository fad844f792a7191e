"""Reading paths, exercise list and index of concepts say what the chapters say."""

import ast
import inspect
import itertools
import re

import lists
import nbformat
import pytest

from gradutils import theory
from tools import ROOT, rules

CHAPTERS = {
    path.name: nbformat.read(path, as_version=4)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
}
PATHS = (ROOT / "book" / "paths.md").read_text("utf-8")
CONCEPTS = re.search(
    r"```\{concept-index\}\n(.*?)\n```", (ROOT / "book" / "concepts.md").read_text("utf-8"), re.S
)[1].split("\n")
LINK = r"\]\(\.\./notebooks/(\w+\.ipynb)\)"


def sources(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def needs(name):
    """The paragraph of a chapter that says what it takes, in knowledge and in time."""
    (cell,) = [text for text in sources(CHAPTERS[name], "markdown") if "**What you need" in text]
    return cell.split("**What you need")[1].split("\n\n")[0]


def minutes(name):
    """The time to read that a chapter states."""
    return int(re.search(r"(\d+) minutes", needs(name))[1])


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapters_time_to_read_is_one_that_a_reader_can_keep(name):
    words = len(re.findall(r"\w+", " ".join(map(rules.prose, sources(CHAPTERS[name], "markdown")))))
    assert 40 < words / minutes(name) < 200  # words a minute; prose takes 200, proofs 50


def test_the_minutes_of_a_path_are_those_of_its_chapters():
    rows = re.findall(
        r"^(?:\| (.+?) \| (\d+) \||- \*\*Read and run\*\* (.+): (\d+) min)", PATHS, re.M
    )
    assert len(rows) == 4 + 6 + 5  # two hours, six weeks, five days
    for table, stated, week, per_week in rows:
        names = re.findall(LINK, table or week)
        assert sum(map(minutes, names)) == int(stated or per_week), names
    first = rows[:4]
    assert f"That is {sum(int(row[1]) for row in first)} minutes" in PATHS
    assert sum(int(row[1]) for row in first) <= 120


def test_the_course_takes_every_chapter_once_in_an_order_that_builds_up():
    course = PATHS.split("## A course")[1].split("## An engineer")[0]
    weeks = re.findall(r"\*\*Read and run\*\* (.+):", course)
    read = [name for week in weeks for name in re.findall(LINK, week)]
    after = re.findall(LINK, course.split("After the course")[1])
    assert sorted(read + after) == list(CHAPTERS)
    for name in read:
        for needed in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", needs(name)):
            # Clipping names the chapter that draws the cliff, and can do without.
            late = read.index(needed) > read.index(name)
            assert not late or (name[:2], needed[:2]) == ("13", "06"), (name, needed)
    assert all(len(re.findall(LINK, week)) <= 4 for week in weeks)


def test_a_week_sets_exercises_of_its_own_chapters_and_hands_in_an_open_one():
    for week in re.split(r"^### Week \d", PATHS, flags=re.M)[1:]:
        week = week.split("After the course")[0]
        names = re.findall(LINK, re.search(r"Read and run\*\* .+", week)[0])
        exercises = re.findall(
            r"\[(\d+)\.(\d+)\]\(\.\./notebooks/(\w+\.ipynb)#exercise-(\d+)-", week
        )
        assert {file for *_, file, _ in exercises} == set(names)
        assert all(int(file[:2]) == int(c) and n == m for c, n, file, m in exercises)
        handed = re.search(r"Hand in\*\* \[.+?\]\(\S+-(\w+)\)", week)
        assert handed[1] == "open"


def test_the_calls_that_a_sick_model_asks_for_can_be_made():
    from gradutils.diagnosis import diagnose
    from gradutils.monitor import GradientMonitor
    from gradutils.probes import probe

    known = {f.__name__: f for f in (diagnose, probe, GradientMonitor, theory.critical_sigma_w)}
    calls = re.findall(rf"`((?:theory\.)?(?:{'|'.join(known)})\(.*?\))`", PATHS)
    assert {re.split(r"[(]", call.removeprefix("theory."))[0] for call in calls} == set(known)
    for call in calls:
        node = ast.parse(call, mode="eval").body
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        name = call.removeprefix("theory.").split("(")[0]
        inspect.signature(known[name]).bind(*node.args, **options)


@pytest.mark.parametrize(("name", "following"), itertools.zip_longest(CHAPTERS, [*CHAPTERS][1:]))
def test_a_chapter_ends_with_the_next_one(name, following):
    last = sources(CHAPTERS[name], "markdown")[-1].split("\n\n")[-1]
    first_link, *others = re.findall(r"\]\((\S+?)\)", last)
    assert others
    assert first_link == following or (following is None and "The chapters end here" in last)


def test_the_list_of_exercises_has_all_of_them():
    cells = {name: notebook.cells for name, notebook in CHAPTERS.items()}
    lines = "\n".join(lists.ExerciseList.markdown(None, cells))
    rows = re.findall(
        r"^\| (\d+)\.(\d+) \| \[.+?\]\(\.\./notebooks/(\w+\.ipynb)#exercise-(\d+)-\S+\) "
        r"\| (\w+) \| (.*) \|$",
        lines,
        flags=re.M,
    )
    wanted = []
    for name, notebook in CHAPTERS.items():
        code = "\n".join(sources(notebook, "code"))
        for number, difficulty, *_ in rules.parts_of_exercises(notebook):
            judged = f'exercises.check("{name[:2]}.{number}"' in code
            mark = "checks your answer" if judged else ""
            wanted.append((str(int(name[:2])), str(number), name, str(number), difficulty, mark))
    assert rows == wanted
    assert len(rows) > 100


def test_the_index_explains_every_term_of_the_glossary():
    concepts = {line.split(": ", 1)[0] for line in CONCEPTS}
    assert len(concepts) == len(CONCEPTS)
    missing = [names for names, *_ in rules.glossary() if not concepts & set(names)]
    assert missing == []


def test_the_index_adds_the_chapters_that_use_a_term():
    cells = {name: notebook.cells for name, notebook in CHAPTERS.items()}
    index = lists.ConceptIndex.__new__(lists.ConceptIndex)
    index.content = CONCEPTS
    lines = list(index.markdown(cells))
    (line,) = [line for line in lines if line.startswith("- [singular value]")]
    explained, used = line.split("; used in ")
    assert "04_jacobian_products.ipynb#singular-values-not-eigenvalues" in explained
    assert "04_jacobian" not in used
    assert "[Optimisers](../notebooks/12_optimizers.ipynb#muon-alike-over-directions)" in used
    names = [re.match(r"- \[?(.+?)[\]:]", line)[1].lower() for line in lines]
    assert names == sorted(names)
