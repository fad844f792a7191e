"""Copies of Keras' optimisers, which take steps in place of the model's own."""

from typing import Any


def inner_optimizer(model: Any) -> Any:
    """The model's optimiser without a loss scale around it; None if there is none."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(optimizer, "inner_optimizer", optimizer)


def optimizer_twin(optimizer: Any, variables: list, **changes: Any) -> Any:
    """A copy of an optimiser, with its state if that was built for weights of the same shapes.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer
        Built or not; it stays as it is.
    variables : list of keras.Variable
        The weights that the copy moves.
    **changes
        Arguments of the optimiser that differ in the copy, such as ``epsilon=1e-3``.

    Returns
    -------
    keras.optimizers.Optimizer
        Built.
    """
    twin = _unbuilt_twin(optimizer, changes)
    twin.build(variables)
    mine, theirs = optimizer_state(twin), optimizer_state(optimizer) if optimizer.built else []
    if [v.shape for v in mine] == [v.shape for v in theirs]:
        for variable, value in zip(mine, theirs, strict=True):
            variable.assign(value.value)
    return twin


def _unbuilt_twin(optimizer: Any, changes: dict[str, Any]) -> Any:
    if hasattr(optimizer, "inner_optimizer"):
        inner = _unbuilt_twin(optimizer.inner_optimizer, changes)
        config = {key: getattr(optimizer, key) for key in ("initial_scale", "dynamic_growth_steps")}
        return type(optimizer)(inner, name=optimizer.name, **config)
    rate = optimizer._learning_rate
    # A schedule is handed over as it is, since one's own need not know how to describe itself.
    optimizer.__dict__["_learning_rate"] = None
    try:
        config = optimizer.get_config()
    finally:
        optimizer.__dict__["_learning_rate"] = rate
    rate = rate if callable(rate) else float(rate)
    twin = type(optimizer).from_config(config | {"learning_rate": rate} | changes)
    for kept in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
        if hasattr(optimizer, kept):
            twin.__dict__[kept] = getattr(optimizer, kept)
    return twin


def optimizer_state(optimizer: Any) -> list:
    """An optimiser's variables without its learning rate.

    Parameters
    ----------
    optimizer : keras.optimizers.Optimizer

    Returns
    -------
    list of keras.Variable
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [v for v in optimizer.variables if v is not inner._learning_rate]
