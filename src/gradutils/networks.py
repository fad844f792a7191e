"""Deep networks in NumPy: forward and backward signals, Jacobians, and plain training.

Rows are samples. Layer l computes h_l = x_{l-1} W_l + b_l and x_l = phi(h_l); the output is the
last pre-activation h_L, so the output layer is linear. W_l has the shape (fan_in, fan_out), as
in Keras. A number that overflows becomes inf or NaN and is returned as a result, without warning.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from gradutils import activations, initializers
from gradutils.activations import Function

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]

_quiet = np.errstate(over="ignore", under="ignore", invalid="ignore")


class Signals(NamedTuple):
    """Forward pass: pre-activations h_1..h_L and the layers' inputs x_0..x_{L-1}.

    Lists of ndarray, shape (batch, width of the layer).
    """

    pre: list[np.ndarray]
    inputs: list[np.ndarray]

    @property
    def output(self) -> np.ndarray:
        """The last pre-activation h_L, shape (batch, outputs)."""
        return self.pre[-1]


class Gradients(NamedTuple):
    """Backward pass: the derivatives of the loss, one entry per layer.

    delta[l] is dL/dh, shape (batch, width); weights[l] is dL/dW, shape (fan_in, fan_out);
    biases[l] is dL/db, shape (width,); input is dL/dx_0, shape (batch, inputs).
    """

    delta: list[np.ndarray]
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    input: np.ndarray


class MLP:
    """A fully connected network with one activation and one rule for its weights.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden layers, outputs: len(widths) - 1 layers of weights.
    activation : str or (callable, callable)
        Name from `gradutils.activations.ACTIVATIONS`, or the pair (phi, derivative).
    initializer : str or float
        Rule of `gradutils.initializers.draw`: "he", "glorot", "lecun", "uniform_third",
        "orthogonal", or sigma_w, which means Gaussian weights of deviation sigma_w / sqrt(fan_in).
    seed : int or numpy.random.Generator
    bias_std : float
        Standard deviation of the Gaussian biases; 0 leaves them at zero.
    dtype : numpy dtype
        float64 or float32. Weights are drawn in float64 and rounded.

    Attributes
    ----------
    weights, biases : list of ndarray
        Parameters by layer; writable.

    Examples
    --------
    >>> import numpy as np
    >>> net = MLP([64] * 51, "relu", "he", seed=0)
    >>> signals = net.forward(np.random.default_rng(1).standard_normal((100, 64)))
    >>> len(signals.pre), signals.output.shape
    (50, (100, 64))
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | tuple[Function, Function],
        initializer: str | float,
        *,
        seed: int | np.random.Generator,
        bias_std: float = 0.0,
        dtype: DTypeLike = np.float64,
    ) -> None:
        if len(widths) < 2 or any(width < 1 for width in widths):
            raise ValueError(f"widths must be two or more positive integers; received {widths!r}")
        if not 0 <= bias_std < np.inf:
            raise ValueError(f"bias_std must be a finite number >= 0; received {bias_std!r}")
        if np.dtype(dtype) not in (np.float64, np.float32):
            raise ValueError(f"dtype must be float64 or float32; received {dtype!r}")
        self.activation = activations.get(activation)
        self.dtype = np.dtype(dtype)
        self.weights: list[np.ndarray] = []
        self.biases: list[np.ndarray] = []
        rng = np.random.default_rng(seed)
        for shape in zip(widths[:-1], widths[1:], strict=True):
            self.weights.append(initializers.draw(initializer, shape, rng).astype(dtype))
            bias = bias_std * rng.standard_normal(shape[1]) if bias_std else np.zeros(shape[1])
            self.biases.append(bias.astype(dtype))

    @_quiet
    def forward(self, x: np.ndarray) -> Signals:
        """Compute all layers' signals.

        Parameters
        ----------
        x : ndarray, shape (batch, inputs)
            Finite numbers.

        Raises
        ------
        ValueError
            If the shape does not fit, or x holds NaN or inf.
        """
        x = self._checked("x", x, self.weights[0].shape[0])
        pre, inputs = [], [x]
        for W, b in zip(self.weights, self.biases, strict=True):
            pre.append(inputs[-1] @ W + b)  # (batch, fan_in) @ (fan_in, fan_out)
            inputs.append(self.activation.phi(pre[-1]))
        return Signals(pre, inputs[:-1])

    @_quiet
    def backward(self, signals: Signals, grad_output: np.ndarray) -> Gradients:
        """Propagate the gradient of a loss from the output back through all layers.

        Parameters
        ----------
        signals : Signals
            What `forward` returned.
        grad_output : ndarray, shape (batch, outputs)
            Derivative of the loss with respect to the output, as the losses of this module
            return it.

        Raises
        ------
        ValueError
            If the shape of grad_output does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> net = MLP([2, 3, 1], "tanh", "lecun", seed=0)
        >>> signals = net.forward(np.ones((5, 2)))
        >>> gradients = net.backward(signals, np.ones((5, 1)))
        >>> [g.shape for g in gradients.weights]
        [(2, 3), (3, 1)]
        """
        delta = np.asarray(grad_output, self.dtype)
        if delta.shape != signals.output.shape:
            raise ValueError(
                f"grad_output must have the output's shape {signals.output.shape}; "
                f"received {delta.shape}"
            )
        deltas = [delta]
        for W, h in zip(self.weights[:0:-1], signals.pre[-2::-1], strict=True):
            deltas.append((deltas[-1] @ W.T) * self.activation.derivative(h))
        deltas.reverse()
        return Gradients(
            delta=deltas,
            weights=[x.T @ d for x, d in zip(signals.inputs, deltas, strict=True)],
            biases=[d.sum(axis=0) for d in deltas],
            input=deltas[0] @ self.weights[0].T,
        )

    @_quiet
    def jacobian(self, x: np.ndarray, layer: int = -1) -> np.ndarray:
        """Return dh/dx_0, the Jacobian of a layer's pre-activation at one input.

        Parameters
        ----------
        x : ndarray, shape (inputs,)
        layer : int
            Index into the layers' list; the output layer by default.

        Returns
        -------
        ndarray, shape (width of the layer, inputs)

        Examples
        --------
        >>> import numpy as np
        >>> net = MLP([3, 3, 3], "linear", "orthogonal", seed=0)
        >>> np.linalg.svd(net.jacobian(np.ones(3)), compute_uv=False).round(12)
        array([1., 1., 1.])
        """
        if not -len(self.weights) <= layer < len(self.weights):
            raise ValueError(f"layer must index {len(self.weights)} layers; received {layer!r}")
        signals = self.forward(np.asarray(x)[None])
        J = self.weights[0].T  # (width, inputs)
        for h, W in zip(signals.pre[:layer], self.weights[1:], strict=False):
            J = W.T @ (self.activation.derivative(h[0])[:, None] * J)
        return J

    def _checked(self, name: str, x: np.ndarray, features: int) -> np.ndarray:
        x = np.asarray(x, self.dtype)
        if x.ndim != 2 or x.shape[1] != features:
            raise ValueError(f"{name} must have shape (batch, {features}); received {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name} must be finite; received {(~np.isfinite(x)).sum()} NaN or inf")
        return x


@_quiet
def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean softmax cross-entropy and its gradient with respect to the logits.

    Parameters
    ----------
    logits : ndarray, shape (batch, classes)
    labels : ndarray of int, shape (batch,)

    Returns
    -------
    loss : float
        In nats.
    gradient : ndarray, shape (batch, classes)

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> f"{loss:.4f}", gradient.tolist()
    ('0.6931', [[-0.5, 0.5]])
    """
    batch, classes = logits.shape
    if labels.shape != (batch,) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be {batch} integers from 0 to {classes - 1}; received shape "
            f"{labels.shape}, {labels.min()} to {labels.max()}"
        )
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(batch)
    gradient = np.exp(log_p)
    gradient[rows, labels] -= 1
    return float(-log_p[rows, labels].mean()), gradient / batch


@_quiet
def squared_error(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean squared error over all entries and its gradient.

    Parameters
    ----------
    outputs, targets : ndarray, of one shape

    Examples
    --------
    >>> import numpy as np
    >>> squared_error(np.array([[3.0]]), np.array([[1.0]]))
    (4.0, array([[4.]]))
    """
    if outputs.shape != targets.shape:
        raise ValueError(
            f"targets must have the outputs' shape {outputs.shape}; received {targets.shape}"
        )
    error = outputs - targets
    return float((error**2).mean()), 2 * error / error.size


@_quiet
def train(
    net: MLP,
    x: np.ndarray,
    y: np.ndarray,
    *,
    loss: Loss,
    learning_rate: float,
    epochs: int,
    rng: np.random.Generator,
    batch_size: int = 64,
    momentum: float = 0.0,
) -> np.ndarray:
    """Train a network in place by stochastic gradient descent.

    Parameters
    ----------
    net : MLP
        Its weights and biases are changed.
    x : ndarray, shape (samples, inputs)
    y : ndarray, shape (samples, ...)
        As the loss takes it.
    loss : callable
        (outputs, targets) -> (loss, gradient), such as `cross_entropy`.
    learning_rate, momentum : float
        Heavy-ball momentum, as keras.optimizers.SGD: v = momentum v - learning_rate g; W = W + v.
    epochs, batch_size : int
    rng : numpy.random.Generator
        Draws the order of the samples.

    Returns
    -------
    ndarray, shape (epochs,)
        Mean loss over the batches of each epoch, NaN or inf where training diverged.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0]])
    >>> net = MLP([1, 1], "linear", "lecun", seed=0)
    >>> rng = np.random.default_rng(0)
    >>> history = train(net, x, 2 * x, loss=squared_error, learning_rate=0.5, epochs=99, rng=rng)
    >>> f"{net.weights[0].item():.6f}"
    '2.000000'
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"x and y must hold as many samples; received {len(x)} and {len(y)}")
    parameters = net.weights + net.biases
    velocity = [np.zeros_like(p) for p in parameters]
    history = np.empty(epochs)
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        losses = []
        for batch in np.split(order, range(batch_size, len(x), batch_size)):
            signals = net.forward(x[batch])
            value, grad_output = loss(signals.output, y[batch])
            gradients = net.backward(signals, grad_output)
            losses.append(value)
            for p, v, g in zip(
                parameters, velocity, gradients.weights + gradients.biases, strict=True
            ):
                v *= momentum
                v -= learning_rate * g
                p += v
        history[epoch] = np.mean(losses)
    return history


def accuracy(net: MLP, x: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose largest output is the label's.

    Parameters
    ----------
    x : ndarray, shape (samples, inputs)
    labels : ndarray of int, shape (samples,)
    """
    return float((net.forward(x).output.argmax(axis=1) == labels).mean())
