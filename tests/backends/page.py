"""The page `book/backends.md`: its code, and the outputs that stand below it.

``python -m tests.backends.page`` writes the outputs anew of those parts whose framework is there.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "book" / "backends.md"
#: Heading of a part -> the framework that it needs.
PARTS = {
    "A plain torch module": "torch",
    "A loop of your own": "torch",
    "Keras on PyTorch": "torch",
    "Keras on JAX": "jax",
}
_BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.M | re.S)


def blocks(part):
    """The code and the stored outputs of a part, and what must run before, as one program."""
    text = PAGE.read_text("utf-8")
    head, *rest = re.split(r"^## (.*)\n", text, flags=re.M)
    bodies = dict(zip(rest[::2], rest[1::2], strict=True))
    found = {title: _BLOCK.findall(body) for title, body in {"": head, **bodies}.items()}
    code = {title: [c for kind, c in all if kind == "python"] for title, all in found.items()}
    outputs = [c for kind, c in found[part] if kind == "text"]
    before = list(code[""])
    if part == "A loop of your own":
        # The part before it defines the network; what it prints is stored there.
        before += [re.sub(r"^print\(.*\n", "", c, flags=re.M) for c in code["A plain torch module"]]
    after = code["Keras on PyTorch"][1:] if part == "Keras on JAX" else []
    return [*before, *code[part], *after], outputs


def printed(part):
    """What the code of a part prints, block by block as they are stored."""
    code, outputs = blocks(part)
    program = "\nprint('----')\n".join(code)
    variables = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=variables
    )
    if result.returncode:
        raise RuntimeError(result.stderr)
    found = [block.removeprefix("\n") for block in result.stdout.split("----")]
    found = [block for block in found if block.strip()]
    if len(found) != len(outputs):
        raise ValueError(f"{part} prints {len(found)} blocks and stores {len(outputs)}")
    return found


def is_here(part):
    """Whether the part's framework is installed."""
    return importlib.util.find_spec(PARTS[part]) is not None


def main():
    """Write what the parts print into the page."""
    for part in filter(is_here, PARTS):
        text = PAGE.read_text("utf-8")
        start = text.index(f"## {part}\n")
        end = (text + "\n## ").index("\n## ", start + 1)
        outputs = iter(printed(part))
        body = re.sub(
            r"^```text\n.*?^```$",
            lambda _: f"```text\n{next(outputs)}```",  # noqa: B023
            text[start:end],
            flags=re.M | re.S,
        )
        PAGE.write_text(text[:start] + body + text[end:], "utf-8")
        print(part)


if __name__ == "__main__":
    main()
