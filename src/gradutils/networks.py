"""Deep networks in NumPy: forward and backward signals, Jacobians, and plain training.

Rows are samples. Layer l computes h_l = x_{l-1} W_l + b_l and x_l = phi(h_l); the output is the
last pre-activation h_L, so the output layer is linear. W_l has the shape (fan_in, fan_out), as
in Keras. With a normalisation, x_l = phi(norm(h_l)). With skip connections of branch scale a,
h_l = h_{l-1} + a (x_{l-1} W_l + b_l) wherever two layers have one width. A number that overflows
becomes inf or NaN and is returned as a result, without warning.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from gradutils import _checks, activations, initializers
from gradutils.activations import Function
from gradutils.normalizations import NORMALIZATIONS

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]

_quiet = np.errstate(over="ignore", under="ignore", invalid="ignore")


class Signals(NamedTuple):
    """Forward pass: pre-activations h_1..h_L and the layers' inputs x_0..x_{L-1}.

    Lists of ndarray, shape (batch, width of the layer). normalized holds norm(h_l) and the
    deviations it was divided by, for the hidden layers of a network with a normalisation.
    """

    pre: list[np.ndarray]
    inputs: list[np.ndarray]
    normalized: list[tuple[np.ndarray, np.ndarray]]

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


class LayerNorms(NamedTuple):
    """Sizes of the signals of one batch, each an ndarray of shape (layers,).

    forward is the root mean square of h_l; backward the norm of dL/dh_l over the batch; weights
    the norm of dL/dW_l.
    """

    forward: np.ndarray
    backward: np.ndarray
    weights: np.ndarray


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
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights: one of the two is needed.
    bias_std : float
        Standard deviation of the Gaussian biases; 0 leaves them at zero.
    normalization : str, optional
        "batch", "layer" or "rms": normalises the hidden pre-activations, without gain and shift.
    branch_scale : float, optional
        Factor a on the branch beside each skip connection; None for no skip connections.
    dtype : numpy dtype
        float64 or float32. Weights are drawn in float64 and rounded.
    storage : numpy dtype, optional
        Every signal, forward and backward, and every gradient is rounded to this type when it is
        stored, as in mixed-precision training: np.float16, or ml_dtypes.bfloat16.

    Attributes
    ----------
    weights, biases : list of ndarray
        Parameters by layer; writable.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> import numpy as np
    >>> net = MLP([64] * 51, "relu", "he", seed=0)
    >>> x = np.random.default_rng(1).standard_normal((100, 64))
    >>> signals = net.forward(x)
    >>> len(signals.pre), signals.output.shape
    (50, (100, 64))
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | tuple[Function, Function],
        initializer: str | float,
        *,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
        bias_std: float = 0.0,
        normalization: str | None = None,
        branch_scale: float | None = None,
        dtype: DTypeLike = np.float64,
        storage: DTypeLike | None = None,
    ) -> None:
        if len(widths) < 2 or not all(map(_checks.is_positive_integer, widths)):
            raise ValueError(f"widths must be two or more positive integers; received {widths!r}")
        if branch_scale is not None:
            _checks.finite(branch_scale=branch_scale)
        _checks.nonnegative(bias_std=bias_std)
        _checks.rules(initializers.DRAWS, initializer=initializer)
        _check_types(dtype, storage)
        _checks.names(NORMALIZATIONS, or_none=True, normalization=normalization)
        self.activation = activations.get(activation)
        self.normalization, self.branch_scale = normalization, branch_scale
        self.dtype, self.storage = np.dtype(dtype), storage
        self.weights: list[np.ndarray] = []
        self.biases: list[np.ndarray] = []
        rng = _checks.generator(seed, rng)
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

        Returns
        -------
        Signals

        Raises
        ------
        ValueError
            If the shape does not fit, or x holds NaN or inf.

        Examples
        --------
        >>> import numpy as np
        >>> net = MLP([2, 3, 1], "tanh", "lecun", seed=0)
        >>> [h.shape for h in net.forward(np.ones((5, 2))).pre]
        [(5, 3), (5, 1)]
        """
        x = self._checked("x", x, self.weights[0].shape[0])
        signals = Signals([], [x], [])
        for layer, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = signals.inputs[-1] @ W + b  # (batch, fan_in) @ (fan_in, fan_out)
            if self._skips(layer):
                h = signals.pre[-1] + self.branch_scale * h
            h = self._stored(h)
            signals.pre.append(h)
            if layer < len(self.weights) - 1:
                if self.normalization:
                    signals.normalized.append(NORMALIZATIONS[self.normalization].forward(h))
                    h = signals.normalized[-1][0]
                signals.inputs.append(self._stored(self.activation.phi(h)))
        return signals

    def _stored(self, a: np.ndarray) -> np.ndarray:
        return a if self.storage is None else a.astype(self.storage).astype(self.dtype)

    def _skips(self, layer: int) -> bool:
        """Tell whether a skip connection passes by this layer."""
        fan_in, fan_out = self.weights[layer].shape
        return self.branch_scale is not None and layer > 0 and fan_in == fan_out

    def _pulled_back(self, signals: Signals, layer: int, delta: np.ndarray) -> np.ndarray:
        """Return dL/dh of the layer before, from delta = dL/dh of this one."""
        branch = self.branch_scale if self._skips(layer) else 1.0
        g = branch * (delta @ self.weights[layer].T)  # (batch, fan_out) @ (fan_out, fan_in)
        if self.normalization:
            n, scale = signals.normalized[layer - 1]
            g = NORMALIZATIONS[self.normalization].backward(
                g * self.activation.derivative(n), n, scale
            )
        else:
            g = g * self.activation.derivative(signals.pre[layer - 1])
        return self._stored(delta + g if self._skips(layer) else g)

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

        Returns
        -------
        Gradients

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
        delta = self._stored(
            _checks.gradient("grad_output", grad_output, signals.output, self.dtype)
        )
        deltas = [delta]
        for layer in range(len(self.weights) - 1, 0, -1):
            deltas.insert(0, self._pulled_back(signals, layer, deltas[0]))
        into_branch = [
            self.branch_scale * d if self._skips(layer) else d for layer, d in enumerate(deltas)
        ]
        return Gradients(
            delta=deltas,
            weights=[
                self._stored(x.T @ d) for x, d in zip(signals.inputs, into_branch, strict=True)
            ],
            biases=[self._stored(d.sum(axis=0)) for d in into_branch],
            input=self._stored(deltas[0] @ self.weights[0].T),
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

        Raises
        ------
        ValueError
            If the shape of `x` does not fit, `x` holds NaN or inf, `layer` is no index of a layer,
            or the network has batch normalisation, which has no Jacobian at one input.

        Examples
        --------
        >>> import numpy as np
        >>> net = MLP([3, 3, 3], "linear", "orthogonal", seed=0)
        >>> np.linalg.svd(net.jacobian(np.ones(3)), compute_uv=False).round(12)
        array([1., 1., 1.])
        """
        if layer not in range(-len(self.weights), len(self.weights)):
            raise ValueError(f"layer must index {len(self.weights)} layers; received {layer!r}")
        if self.normalization == "batch":
            raise ValueError(
                "normalization must not be 'batch', which has no Jacobian at one input; received "
                f"{self.normalization!r}"
            )
        signals = self.forward(_checks.numbers("x", x)[None])
        layer %= len(self.weights)
        delta = np.eye(self.weights[layer].shape[1], dtype=self.dtype)  # One row is one output.
        for above in range(layer, 0, -1):
            delta = self._pulled_back(signals, above, delta)
        return delta @ self.weights[0].T

    def _checked(self, name: str, x: np.ndarray, features: int) -> np.ndarray:
        x = _checks.numbers(name, x, self.dtype)
        if x.ndim != 2 or len(x) < 1 or x.shape[1] != features:
            raise ValueError(f"{name} must have shape (batch, {features}); received {x.shape}")
        _checks.finite_arrays(**{name: x})
        return x


def _check_types(dtype: DTypeLike, storage: DTypeLike | None) -> None:
    if not _holds_half(dtype) or np.dtype(dtype) not in (np.float64, np.float32):
        raise ValueError(f"dtype must be float64 or float32; received {dtype!r}")
    if storage is not None and not _holds_half(storage):
        raise ValueError(f"storage must be None or a floating-point type; received {storage!r}")


def _holds_half(dtype: DTypeLike) -> bool:
    try:
        return bool(np.array(0.5).astype(dtype) == 0.5)
    except TypeError:
        return False


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

    Raises
    ------
    ValueError
        If the logits are no table, or the labels are not one integer per row that names a class.

    Examples
    --------
    >>> import numpy as np
    >>> loss, gradient = cross_entropy(np.zeros((1, 2)), np.array([0]))
    >>> f"{loss:.4f}", gradient.tolist()
    ('0.6931', [[-0.5, 0.5]])
    """
    logits, labels = _checks.numbers("logits", logits), np.asarray(labels)
    if logits.ndim != 2 or logits.size == 0:
        raise ValueError(f"logits must have shape (batch, classes); received {logits.shape}")
    batch, classes = logits.shape
    integers = labels.dtype.kind in "iu"
    if not integers or labels.shape != (batch,) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be {batch} integers from 0 to {classes - 1}; received {labels.dtype} of "
            f"shape {labels.shape}: {np.unique(labels)[:9].tolist()}"
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

    Returns
    -------
    loss : float
    gradient : ndarray, of the outputs' shape

    Raises
    ------
    ValueError
        If the shapes differ, or there are no entries.

    Examples
    --------
    >>> import numpy as np
    >>> squared_error(np.array([[3.0]]), np.array([[1.0]]))
    (4.0, array([[4.]]))
    """
    outputs, targets = _checks.numbers("outputs", outputs), _checks.numbers("targets", targets)
    if outputs.shape != targets.shape or outputs.size == 0:
        raise ValueError(
            f"targets must have the outputs' shape {outputs.shape}; received {targets.shape}"
        )
    error = outputs - targets
    return float((error**2).mean()), 2 * error / error.size


@_quiet
def layer_norms(
    net: MLP, x: np.ndarray, y: np.ndarray, *, loss: Loss = cross_entropy
) -> LayerNorms:
    """Return how large the forward and backward signals of one batch are in each layer.

    Parameters
    ----------
    net : MLP
    x : ndarray, shape (batch, inputs)
    y : ndarray, shape (batch, ...)
        As the loss takes it.
    loss : callable
        (outputs, targets) -> (loss, gradient).

    Returns
    -------
    LayerNorms

    Raises
    ------
    ValueError
        If `x` does not fit the network, or `y` the loss.

    Examples
    --------
    >>> import numpy as np
    >>> net = MLP([64] * 51, "linear", "orthogonal", seed=0)
    >>> x = np.random.default_rng(1).standard_normal((100, 64))
    >>> norms = layer_norms(net, x, np.zeros((100, 64)), loss=squared_error)
    >>> f"{norms.forward[-1] / norms.forward[0]:.4f}"
    '1.0000'
    >>> f"{norms.backward[0] / norms.backward[-1]:.4f}"
    '1.0000'
    """
    _checks.callables(loss=loss)
    signals = net.forward(x)
    gradients = net.backward(signals, loss(signals.output, y)[1])
    return LayerNorms(
        forward=np.array([np.sqrt(np.mean(h**2)) for h in signals.pre]),
        backward=np.array([np.linalg.norm(delta) for delta in gradients.delta]),
        weights=np.array([np.linalg.norm(g) for g in gradients.weights]),
    )


def _sgd_step(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *,
    learning_rate: float, momentum: float, step: int,
) -> None:  # fmt: skip
    """Step as keras.optimizers.SGD does: m = momentum m - learning_rate g, then p = p + m."""
    m *= momentum
    m -= learning_rate * g
    p += m


def _adam_step(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *,
    learning_rate: float, momentum: float, step: int,
) -> None:  # fmt: skip
    """Step as keras.optimizers.Adam with its defaults, which needs no `momentum`."""
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-7
    m += (1 - beta_1) * (g - m)
    v += (1 - beta_2) * (g * g - v)
    rate = learning_rate * np.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    p -= rate * m / (np.sqrt(v) + epsilon)


#: Name -> function that takes one step, the first of which is 1, with the gradient g of a
#: parameter p. It changes p and its two slots m and v, which are zero at the start, in place.
OPTIMIZERS: dict[str, Callable[..., None]] = {"sgd": _sgd_step, "adam": _adam_step}


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
    optimizer: str = "sgd",
    momentum: float = 0.0,
    clip_norm: float = np.inf,
) -> np.ndarray:
    """Train a network in place on shuffled mini-batches.

    Parameters
    ----------
    net : MLP
        Its weights and biases are changed.
    x : ndarray, shape (samples, inputs)
    y : ndarray, shape (samples, ...)
        As the loss takes it.
    loss : callable
        (outputs, targets) -> (loss, gradient), such as `cross_entropy`.
    learning_rate : float
    epochs, batch_size : int
    rng : numpy.random.Generator
        Draws the order of the samples.
    optimizer : str
        A key of `OPTIMIZERS`. "sgd" has heavy-ball momentum as keras.optimizers.SGD has it
        (v = momentum v - learning_rate g, W = W + v); the others are those of Keras with its
        defaults.
    momentum : float
        For "sgd", from 0 to below 1.
    clip_norm : float
        Largest norm of the gradient over all parameters; a longer one is scaled down to it.

    Returns
    -------
    ndarray, shape (epochs,)
        Mean loss over the batches of each epoch, NaN or inf where training diverged.

    Raises
    ------
    ValueError
        If x and y do not hold as many samples, or an option is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[0.0], [1.0]])
    >>> net = MLP([1, 1], "linear", "lecun", seed=0)
    >>> options = {"loss": squared_error, "learning_rate": 0.5}
    >>> rng = np.random.default_rng(0)
    >>> history = train(net, x, 2 * x, epochs=99, rng=rng, **options)
    >>> f"{net.weights[0].item():.6f}"
    '2.000000'
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"x and y must hold as many samples; received {len(x)} and {len(y)}")
    _check_training(learning_rate, epochs, batch_size, optimizer, momentum, clip_norm)
    _checks.generators(rng=rng)
    _checks.callables(loss=loss)
    parameters = net.weights + net.biases
    slots = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    take_step = OPTIMIZERS[optimizer]
    history, step = np.empty(epochs), 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        losses = []
        for batch in np.split(order, range(batch_size, len(x), batch_size)):
            signals = net.forward(x[batch])
            value, grad_output = loss(signals.output, y[batch])
            gradients = net.backward(signals, grad_output)
            clipped = clip(gradients.weights + gradients.biases, clip_norm)
            losses.append(value)
            step += 1
            for p, g, (m, v) in zip(parameters, clipped, slots, strict=True):
                take_step(p, g, m, v, learning_rate=learning_rate, momentum=momentum, step=step)
        history[epoch] = np.mean(losses)
    return history


def _check_training(
    learning_rate: float,
    epochs: int,
    batch_size: int,
    optimizer: str,
    momentum: float,
    clip_norm: float,
) -> None:
    _checks.positive_integers(epochs=epochs, batch_size=batch_size)
    _checks.nonnegative(learning_rate=learning_rate, momentum=momentum)
    _checks.positive(clip_norm=clip_norm)
    _checks.names(OPTIMIZERS, optimizer=optimizer)
    if momentum >= 1:
        raise ValueError(f"momentum must be below 1; received {momentum!r}")


@_quiet
def clip(gradients: list[np.ndarray], norm: float) -> list[np.ndarray]:
    """Scale gradients down, all by one factor, to a joint norm of at most `norm`.

    A NaN among them leaves all as they are; inf makes itself NaN and the others zero.

    Parameters
    ----------
    gradients : list of ndarray
    norm : float
        Above 0; inf leaves the gradients as they are.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If `norm` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> clip([np.array([3.0]), np.array([4.0])], norm=1.0)
    [array([0.6]), array([0.8])]
    """
    _checks.positive(norm=norm)
    gradients = [_checks.numbers(f"gradients[{i}]", g) for i, g in enumerate(gradients)]
    if norm == np.inf:
        return gradients
    total = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients))
    return [g * min(1.0, norm / total) for g in gradients] if total > 0 else gradients


def accuracy(net: MLP, x: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of samples whose largest output is the label's.

    Parameters
    ----------
    net : MLP
    x : ndarray, shape (samples, inputs)
    labels : ndarray of int, shape (samples,)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is not one label per sample, or `x` does not fit the network.

    Examples
    --------
    >>> import numpy as np
    >>> net = MLP([2, 2], "linear", "lecun", seed=0)
    >>> net.weights[0] = np.eye(2)
    >>> x = np.array([[2.0, 1.0], [3.0, 0.0]])
    >>> accuracy(net, x, labels=np.array([0, 1]))
    0.5
    """
    labels = np.asarray(labels)
    if labels.shape != (len(x),):
        raise ValueError(f"labels must have shape ({len(x)},); received {labels.shape}")
    return float((net.forward(x).output.argmax(axis=1) == labels).mean())
