"""Recurrent networks in NumPy: states, backpropagation through time, Jacobians over time.

Rows are samples. A plain network computes h_t = x_{t-1} W + u_t U + b and x_t = phi(h_t), and
reads out x_T V + c at the last step; an LSTM is the one of Keras, with its order of gates (i, f, c,
o). Sequences have the shape (batch, time, inputs). A number that overflows becomes inf or NaN and
is returned as a result, without warning. `RNN` fits `gradutils.networks.train`.
"""

from typing import NamedTuple

import numpy as np

from gradutils import _checks, activations, initializers
from gradutils.activations import Function

_quiet = np.errstate(over="ignore", under="ignore", invalid="ignore")
_sigmoid = activations.get("sigmoid").phi


class Run(NamedTuple):
    """Forward pass of an RNN over a batch of sequences.

    inputs is u_1..u_T, shape (batch, time, inputs); pre is h_1..h_T, shape (batch, time, units);
    states is x_0..x_T, shape (batch, time + 1, units); output is x_T V + c, (batch, outputs).
    """

    inputs: np.ndarray
    pre: np.ndarray
    states: np.ndarray
    output: np.ndarray


class Gradients(NamedTuple):
    """Backward pass of an RNN: derivatives of the loss.

    delta[:, t - 1] is dL/dh_t, shape (batch, time, units); weights are dL/dU, dL/dW, dL/dV and
    biases dL/db, dL/dc, in the order of the network's own; initial is dL/dx_0, (batch, units).
    """

    delta: np.ndarray
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    initial: np.ndarray


class RNN:
    """A plain recurrent network with a linear readout of its last state.

    Parameters
    ----------
    inputs, units, outputs : int
        Numbers per time step, size of the state, numbers read out at the last step.
    activation : str or (callable, callable)
        Name from `gradutils.activations.ACTIVATIONS`, or the pair (phi, derivative).
    recurrent, kernel : str or float
        Rules of `gradutils.initializers.draw` for W, and for U and V. The defaults are Keras'
        SimpleRNN, with Gaussian Glorot weights for its uniform ones. Biases are zero.
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights: one of the two is needed.

    Attributes
    ----------
    U, W, V : ndarray, shapes (inputs, units), (units, units), (units, outputs)
    b, c : ndarray, shapes (units,), (outputs,)
        Parameters; writable.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.
    TypeError
        If the activation is neither a name nor a pair of callables.

    References
    ----------
    Pascanu, Mikolov and Bengio 2013; backpropagation through time: Rumelhart et al. 1986.

    Examples
    --------
    >>> import numpy as np
    >>> net = RNN(2, 32, 1, seed=0)
    >>> u = np.random.default_rng(1).standard_normal((10, 50, 2))
    >>> run = net.forward(u)
    >>> run.states.shape, run.output.shape
    ((10, 51, 32), (10, 1))
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        outputs: int,
        activation: str | tuple[Function, Function] = "tanh",
        *,
        recurrent: str | float = "orthogonal",
        kernel: str | float = "glorot",
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        _checks.positive_integers(inputs=inputs, units=units, outputs=outputs)
        _checks.rules(initializers.DRAWS, recurrent=recurrent, kernel=kernel)
        rng = _checks.generator(seed, rng)
        self.activation = activations.get(activation)
        self.U = initializers.draw(kernel, (inputs, units), rng)
        self.W = initializers.draw(recurrent, (units, units), rng)
        self.V = initializers.draw(kernel, (units, outputs), rng)
        self.b, self.c = np.zeros(units), np.zeros(outputs)

    @property
    def weights(self) -> list[np.ndarray]:
        """The weight matrices U, W, V."""
        return [self.U, self.W, self.V]

    @property
    def biases(self) -> list[np.ndarray]:
        """The biases b, c."""
        return [self.b, self.c]

    @_quiet
    def forward(self, u: np.ndarray, x0: np.ndarray | None = None) -> Run:
        """Compute all states and the readout of the last one.

        Parameters
        ----------
        u : ndarray, shape (batch, time, inputs)
            Finite numbers.
        x0 : ndarray, shape (batch, units), optional
            Initial states; zero by default.

        Returns
        -------
        Run

        Raises
        ------
        ValueError
            If a shape does not fit, or u holds NaN or inf.

        Examples
        --------
        >>> import numpy as np
        >>> RNN(2, 3, 1, seed=0).forward(np.ones((5, 7, 2))).states.shape
        (5, 8, 3)
        """
        u = _checked_sequences(u, len(self.U))
        batch, time, _ = u.shape
        states = np.empty((batch, time + 1, len(self.W)))
        states[:, 0] = _initial(x0, (batch, len(self.W)))
        pre = u @ self.U + self.b  # (batch, time, units)
        for t in range(time):
            pre[:, t] += states[:, t] @ self.W
            states[:, t + 1] = self.activation.phi(pre[:, t])
        return Run(u, pre, states, states[:, -1] @ self.V + self.c)

    @_quiet
    def backward(self, run: Run, grad_output: np.ndarray) -> Gradients:
        """Propagate the gradient of a loss from the readout back through time.

        Parameters
        ----------
        run : Run
            What `forward` returned.
        grad_output : ndarray, shape (batch, outputs)
            Derivative of the loss with respect to the output.

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
        >>> net = RNN(2, 3, 1, seed=0)
        >>> run = net.forward(np.ones((5, 7, 2)))
        >>> gradients = net.backward(run, np.ones((5, 1)))
        >>> gradients.delta.shape, [g.shape for g in gradients.weights]
        ((5, 7, 3), [(2, 3), (3, 3), (3, 1)])
        """
        grad_output = _checks.gradient("grad_output", grad_output, run.output)
        slope = self.activation.derivative(run.pre)
        delta = np.empty_like(run.pre)
        signal = grad_output @ self.V.T  # dL/dx_T, (batch, units)
        for t in reversed(range(delta.shape[1])):
            delta[:, t] = signal * slope[:, t]
            signal = delta[:, t] @ self.W.T  # dL/dx of the step before
        over_time = ((0, 1), (0, 1))  # sum over batch and time: the same matrix at every step
        return Gradients(
            delta=delta,
            weights=[
                np.tensordot(run.inputs, delta, over_time),
                np.tensordot(run.states[:, :-1], delta, over_time),
                run.states[:, -1].T @ grad_output,
            ],
            biases=[delta.sum(axis=(0, 1)), grad_output.sum(axis=0)],
            initial=signal,
        )

    @_quiet
    def jacobians(self, u: np.ndarray, x0: np.ndarray | None = None) -> np.ndarray:
        """Return dx_t/dx_0 along one sequence, for t = 1..T.

        Parameters
        ----------
        u : ndarray, shape (time, inputs)
        x0 : ndarray, shape (units,), optional
            Initial state; zero by default.

        Returns
        -------
        ndarray, shape (time, units, units)
            Entry [t - 1, i, j] is the derivative of unit i at step t by unit j at step 0.

        Raises
        ------
        ValueError
            If a shape does not fit, or `u` holds NaN or inf.

        Examples
        --------
        >>> import numpy as np
        >>> net = RNN(1, 3, 1, "linear", seed=0)
        >>> J = net.jacobians(np.zeros((50, 1)))  # orthogonal matrices
        >>> np.linalg.svd(J[-1], compute_uv=False).round(12)
        array([1., 1., 1.])
        """
        run = self.forward(
            _checks.numbers("u", u)[None], None if x0 is None else _checks.numbers("x0", x0)[None]
        )
        steps = self.activation.derivative(run.pre[0])[:, :, None] * self.W.T  # dx_t/dx_{t-1}
        for t in range(1, len(steps)):
            steps[t] = steps[t] @ steps[t - 1]
        return steps


class LSTMRun(NamedTuple):
    """Forward pass of an LSTM: outputs h_0..h_T and cells c_0..c_T, (batch, time + 1, units)."""

    h: np.ndarray
    c: np.ndarray


class LSTM:
    """A long short-term memory as Keras computes it, forward only, with the cell's Jacobian.

    The gates i, f, o are sigmoids and the candidate g is a tanh of h_{t-1} W + u_t U + b;
    c_t = f c_{t-1} + i g and h_t = o tanh(c_t).

    Parameters
    ----------
    inputs, units : int
    forget_bias : float
        Bias of the forget gate; all other biases are zero. Keras' default is 1.
    recurrent, kernel : str or float
        Rules of `gradutils.initializers.draw` for W and U; the defaults are Keras', Gaussian.
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights: one of the two is needed.

    Attributes
    ----------
    U, W, b : ndarray, shapes (inputs, 4 units), (units, 4 units), (4 units,)
        Parameters in the order i, f, c, o; writable.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.

    References
    ----------
    Hochreiter and Schmidhuber 1997; the forget gate: Gers, Schmidhuber and Cummins 2000.

    Examples
    --------
    >>> import numpy as np
    >>> net = LSTM(3, 8, seed=0)
    >>> net.forward(np.ones((5, 20, 3))).h.shape
    (5, 21, 8)
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        *,
        forget_bias: float = 1.0,
        recurrent: str | float = "orthogonal",
        kernel: str | float = "glorot",
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        _checks.positive_integers(inputs=inputs, units=units)
        _checks.finite(forget_bias=forget_bias)
        _checks.rules(initializers.DRAWS, recurrent=recurrent, kernel=kernel)
        rng = _checks.generator(seed, rng)
        self.U = initializers.draw(kernel, (inputs, 4 * units), rng)
        self.W = initializers.draw(recurrent, (units, 4 * units), rng)
        self.b = np.repeat([0.0, forget_bias, 0.0, 0.0], units)

    def forward(self, u: np.ndarray) -> LSTMRun:
        """Compute all outputs and cells, from zero states.

        Parameters
        ----------
        u : ndarray, shape (batch, time, inputs)
            Finite numbers.

        Returns
        -------
        LSTMRun

        Raises
        ------
        ValueError
            If the shape does not fit, or u holds NaN or inf.

        Examples
        --------
        >>> import numpy as np
        >>> LSTM(2, 3, seed=0).forward(np.ones((5, 7, 2))).c.shape
        (5, 8, 3)
        """
        u = _checked_sequences(u, len(self.U))
        batch, time, _ = u.shape
        h, c = np.zeros((2, batch, time + 1, len(self.W)))
        for t in range(time):
            i, f, g, o = self._gates(h[:, t], u[:, t])
            c[:, t + 1] = f * c[:, t] + i * g
            h[:, t + 1] = o * np.tanh(c[:, t + 1])
        return LSTMRun(h, c)

    def cell_jacobians(self, u: np.ndarray) -> np.ndarray:
        """Return dc_t/dc_0 along one sequence, for t = 1..T; h_0 is held at zero.

        All paths count: the one through the forget gates, and those through h_1, h_2, ...

        Parameters
        ----------
        u : ndarray, shape (time, inputs)

        Returns
        -------
        ndarray, shape (time, units, units)
            Entry [t - 1, i, j] is the derivative of cell i at step t by cell j at step 0.

        Raises
        ------
        ValueError
            If the shape does not fit, or `u` holds NaN or inf.

        Examples
        --------
        >>> import numpy as np
        >>> net = LSTM(1, 2, forget_bias=0.0, recurrent=0.0, seed=0)
        >>> net.cell_jacobians(np.zeros((3, 1)))[-1]  # 0.5^3
        array([[0.125, 0.   ],
               [0.   , 0.125]])
        """
        run = self.forward(_checks.numbers("u", u)[None])
        units = len(self.W)
        dc, dh = np.eye(units), np.zeros((units, units))
        jacobians = np.empty((len(u), units, units))
        for t in range(len(u)):
            i, f, g, o = (gate[0, :, None] for gate in self._gates(run.h[:, t], u[None, t]))
            di, df, dg, do = np.split(self.W.T @ dh, 4)  # pre-activations by c_0, (units, units)
            before, after = run.c[0, t, :, None], np.tanh(run.c[0, t + 1, :, None])
            dc = f * dc + before * f * (1 - f) * df + g * i * (1 - i) * di + i * (1 - g**2) * dg
            dh = o * (1 - after**2) * dc + after * o * (1 - o) * do
            jacobians[t] = dc
        return jacobians

    def _gates(self, h: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, ...]:
        i, f, g, o = np.split(h @ self.W + u @ self.U + self.b, 4, axis=-1)  # (batch, units) each
        return _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)


def spectral_radius(W: np.ndarray) -> float:
    """Return the largest modulus of the eigenvalues of a square matrix.

    Parameters
    ----------
    W : ndarray, shape (units, units)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `W` is not square, or holds NaN or inf.

    Examples
    --------
    >>> import numpy as np
    >>> spectral_radius(np.array([[0.5, 100.0], [0.0, -0.9]]))
    0.9
    """
    W = _checks.numbers("W", W, float)
    if W.ndim != 2 or W.shape[0] != W.shape[1] or W.size == 0:
        raise ValueError(f"W must be a square matrix; received shape {W.shape}")
    _checks.finite_arrays(W=W)
    return float(np.abs(np.linalg.eigvals(W)).max())


def _checked_sequences(u: np.ndarray, inputs: int) -> np.ndarray:
    u = _checks.numbers("u", u, float)
    if u.ndim != 3 or 0 in u.shape or u.shape[2] != inputs:
        raise ValueError(f"u must have shape (batch, time, {inputs}); received {u.shape}")
    _checks.finite_arrays(u=u)
    return u


def _initial(x0: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    x0 = np.zeros(shape) if x0 is None else _checks.numbers("x0", x0, float)
    if x0.shape != shape:
        raise ValueError(f"x0 must have shape {shape}; received {x0.shape}")
    return x0
