"""Keras on JAX. What a name is for stands in `gradutils._backends.tensorflow`."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import keras
import numpy as np
from jax import numpy as jnp

from gradutils._backends import Seen, Watch

ERRORS = (RuntimeError, jax.errors.JAXTypeError)
LOSSES_TAKE_LOGITS = False
REFUSES_NAN = False
CANNOT_RECORD = (
    "GradientMonitor needs Keras on TensorFlow or on torch: on JAX, what a training step computes "
    "leaves it by private interfaces of Keras only. gradutils.probes.probe and "
    "gradutils.diagnosis.diagnose work on JAX too"
)

frozen = undisturbed = generators_kept = nullcontext  # Keras keeps all state in variables.


def copy_of(variable: Any) -> jax.Array:
    """A variable's value now; JAX changes no array in place."""
    return variable.value


def assign(variable: Any, value: np.ndarray) -> None:
    """Give a variable a value of its own shape and type."""
    variable.assign(value)


def other_state(model: Any) -> Callable[[], None]:
    """A function that puts back what Keras does not count among a model's variables: nothing."""
    return lambda: None


def tensors(data: Any) -> Any:
    """Data in the form in which a loss or model receives them: JAX takes NumPy arrays."""
    return data


class _Tap:
    """What went through one place: an entry for each time, as inside a scan there are many."""

    def __init__(self) -> None:
        self.forward: list[tuple[Any, Any]] = []
        self.backward: list[Any] = []

    def keep(self, output: Any, argument: Any) -> None:
        self.forward.append((argument, output))

    def seen(self) -> list[Seen]:
        """The entries, each with its gradient; None where the loss does not depend on it."""
        gradients = self.backward[::-1] or [None] * len(self.forward)
        return [Seen(*pair, g) for pair, g in zip(self.forward, gradients, strict=False)]


# A host callback carries the arrays out of loops and branches, from where no array can be kept.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _through(tap: _Tap, output: Any, argument: Any) -> Any:
    jax.debug.callback(tap.keep, output, argument, ordered=True)
    return output


def _forward(tap: _Tap, output: Any, argument: Any) -> tuple[Any, None]:
    output, argument = jax.tree.map(lambda a: a.value, (output, argument), is_leaf=_is_primal)
    return _through(tap, output, argument), None


def _is_primal(value: Any) -> bool:
    return isinstance(value, jax.custom_derivatives.CustomVJPPrimal)


def _backward(tap: _Tap, _: None, gradient: Any) -> tuple[Any, None]:
    if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
        return None, None  # The loss does not depend on what went through.
    jax.debug.callback(tap.backward.append, gradient, ordered=True)
    return gradient, None


_through.defvjp(_forward, _backward, symbolic_zeros=True)


def _watching(taps: list[_Tap], zero: Any) -> Watch:
    def watch(output: Any, argument: Any) -> Any:
        taps.append(_Tap())
        argument = argument if isinstance(argument, jax.Array | np.ndarray) else None
        return _through(taps[-1], output + zero.astype(output.dtype), argument)

    return watch


def differentiate(
    forward: Callable[[Watch], tuple[Any, Any]], variables: list
) -> tuple[Any, list[list[Seen]], list]:
    """Run a forward pass and differentiate its loss; what it changes of the model is dropped."""
    taps: list[_Tap] = []
    weight_taps = [_Tap() for _ in variables]

    def run(weights: list, zero: Any) -> tuple[Any, Any]:
        weights = [_through(t, w, None) for t, w in zip(weight_taps, weights, strict=True)]
        with keras.StatelessScope(list(zip(variables, weights, strict=True)), collect_losses=True):
            # The zero lets a gradient flow to what no trained weight precedes.
            return forward(_watching(taps, zero))

    gradient = jax.grad(run, argnums=(0, 1), has_aux=True)
    (at_weights, _), extra = gradient([v.value for v in variables], jnp.zeros(()))
    jax.effects_barrier()
    gradients = [g if t.backward else None for t, g in zip(weight_taps, at_weights, strict=True)]
    return extra, [tap.seen() for tap in taps], gradients


def observe(forward: Callable[[Watch], Any]) -> tuple[Any, list[list[Seen]]]:
    """Run a forward pass; return its value and what went through the places that it watches."""
    taps: list[_Tap] = []
    value = forward(_watching(taps, jnp.zeros(())))
    jax.effects_barrier()
    return value, [tap.seen() for tap in taps]


@contextmanager
def differentiating_twice() -> Iterator[list[bool]]:
    """Yield an empty list: on JAX it cannot be seen whether a loss takes a gradient."""
    yield []


def curvature(outputs_of: Callable[[Any], list], x: Any) -> float:
    """Largest absolute derivative of the summed first derivatives of the outputs."""

    def total(x: Any) -> Any:
        return sum(output.sum() for output in outputs_of(x))

    second = jax.grad(lambda x: jax.grad(total)(x).sum())(jnp.asarray(x))
    return float(jnp.abs(second).max())


def gradients_of(
    loss_of: Callable[..., Any], model: Any
) -> Callable[[tuple, Any], tuple[Any, list]]:
    """A function for a model's loss and its gradients, compiled at its first call."""

    def run(weights: list, others: list, data: tuple, scale: Any) -> tuple[Any, Any]:
        values = [
            *zip(model.trainable_variables, weights, strict=True),
            *zip(model.non_trainable_variables, others, strict=True),
        ]
        with keras.StatelessScope(values, collect_losses=True) as scope:
            value = loss_of(*data)
        moved = [scope.get_current_value(v) for v in model.non_trainable_variables]
        return value * scale, (value, moved)

    step = jax.grad(run, has_aux=True)
    step = step if model.run_eagerly else jax.jit(step)

    def gradients(data: tuple, scale: Any) -> tuple[Any, list]:
        weights, others = (
            [v.value for v in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        )
        found, (value, moved) = step(weights, others, data, scale)
        for variable, new in zip(model.non_trainable_variables, moved, strict=True):
            variable.assign(new)
        return value, found

    return gradients
