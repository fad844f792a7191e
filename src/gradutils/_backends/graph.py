"""What a loss depends on, from torch's graph of it; torch itself is not needed."""

from collections.abc import Sequence
from typing import Any

#: Operations whose derivative is 0 wherever it exists: torch passes zeros on, and no gradient.
_FLAT = ("Ceil", "Floor", "Round", "Sign", "Trunc")


def without_flat(loss: Any, tensors: Sequence[Any], gradients: Sequence[Any]) -> list:
    """The gradients, with None for those that are 0 because something flat stands in between.

    Parameters
    ----------
    loss : torch.Tensor
    tensors : sequence of torch.Tensor
        That the gradients belong to.
    gradients : sequence of torch.Tensor or None

    Returns
    -------
    list of torch.Tensor or None
    """
    if all(g is None or bool(g.any()) for g in gradients):
        return list(gradients)
    nodes, leaves = set[Any](), set[int]()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in nodes or node.name().startswith(_FLAT):
            continue
        nodes.add(node)
        leaves.add(id(getattr(node, "variable", None)))
        waiting += [parent for parent, _ in node.next_functions]
    reached = [t.grad_fn in nodes if t.grad_fn is not None else id(t) in leaves for t in tensors]
    return [g if r else None for g, r in zip(gradients, reached, strict=True)]
