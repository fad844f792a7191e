"""A small transformer in NumPy: attention, feed-forward nets, and the places for a norm.

Tokens are arrays of shape (batch, tokens, width). A branch is attention or a feed-forward net; its
input, its output or the sum behind it may be divided by its root mean square over the width. No
matrix has a bias, and no norm has a gain. A number that overflows becomes inf or NaN and is
returned as a result, without warning.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from gradutils import _checks, activations, initializers
from gradutils.activations import Function
from gradutils.normalizations import NORMALIZATIONS

_quiet = np.errstate(over="ignore", under="ignore", invalid="ignore")
_RMS = NORMALIZATIONS["rms"]

#: Name -> where the root mean square is divided out: before the branch, behind it, behind the sum.
PLACEMENTS: dict[str, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "pre": (True, False, False),
    "post": (False, False, True),
    "sandwich": (True, True, False),
    "output": (False, True, False),
}


class Attended(NamedTuple):
    """Forward pass of `Attention`.

    output is an ndarray of shape (batch, tokens, width). logits, before a cap, and attention, the
    weights behind the softmax, have the shape (batch, heads, tokens, tokens): row i is what token i
    reads. The rest is what the backward pass needs.
    """

    output: np.ndarray
    logits: np.ndarray
    attention: np.ndarray
    rest: tuple

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of each row of the attention in nats, shape (batch, heads, tokens)."""
        a = self.attention
        return -(a * np.log(np.where(a > 0, a, 1))).sum(axis=-1)


class Fed(NamedTuple):
    """Forward pass of `FeedForward`: its output, and what the backward pass needs."""

    output: np.ndarray
    rest: tuple


class Run(NamedTuple):
    """Forward pass of `Transformer`.

    stream holds h_0, h_1, ..., the stream before the first branch and behind each of them, shape
    (batch, tokens, width); branches holds what each branch returned. output is the stream, behind
    a last norm where the placement leaves it without one; or (batch, outputs), with a readout.
    """

    stream: list[np.ndarray]
    branches: list[Any]
    output: np.ndarray
    rest: tuple


class Gradients(NamedTuple):
    """Backward pass of `Transformer`: the derivatives of the loss.

    delta[s] is dL/dh_s, of the shape of the stream; weights are in the order of the network's own
    list; biases is empty, as the network has none; input is dL/dx.
    """

    delta: list[np.ndarray]
    weights: list[np.ndarray]
    biases: list[np.ndarray]
    input: np.ndarray


class Attention:
    """Multi-head self-attention: softmax(q k^T / sqrt(d)) v W_o with d = width / heads.

    Parameters
    ----------
    width, heads : int
        The width is a multiple of the number of heads.
    qk_norm : bool
        Divide each query and each key by its root mean square; then no logit exceeds sqrt(d).
    cap : float
        Soft cap: a logit z becomes cap tanh(z / cap). inf leaves it as it is.
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights, of variance 1 / width: one of the two is needed.

    Attributes
    ----------
    weights : list of ndarray, each of shape (width, width)
        W_q, W_k, W_v and W_o; writable.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.

    Examples
    --------
    >>> import numpy as np
    >>> attention = Attention(8, heads=2, seed=0)
    >>> x = np.random.default_rng(1).standard_normal((3, 5, 8))
    >>> seen = attention.forward(x)
    >>> seen.output.shape, seen.attention.shape
    ((3, 5, 8), (3, 2, 5, 5))
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        qk_norm: bool = False,
        cap: float = np.inf,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        _checks.positive_integers(width=width, heads=heads)
        _checks.positive(cap=cap)
        if width % heads:
            raise ValueError(f"width must be a multiple of {heads} heads; received {width}")
        self.heads, self.qk_norm, self.cap = heads, qk_norm, cap
        rng = _checks.generator(seed, rng)
        self.weights = [initializers.draw("lecun", (width, width), rng) for _ in range(4)]

    def _split(self, x: np.ndarray) -> np.ndarray:
        """Give each head its part of the width: (batch, heads, tokens, d)."""
        return np.swapaxes(x.reshape(*x.shape[:2], self.heads, -1), 1, 2)

    def _joined(self, x: np.ndarray) -> np.ndarray:
        """Put the heads' parts side by side again: (batch, tokens, width)."""
        x = np.swapaxes(x, 1, 2)
        return x.reshape(*x.shape[:2], -1)

    @_quiet
    def forward(self, x: np.ndarray) -> Attended:
        """Let each token read all tokens.

        Parameters
        ----------
        x : ndarray, shape (batch, tokens, width)

        Returns
        -------
        Attended

        Raises
        ------
        ValueError
            If the shape does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> equal = np.ones((1, 3, 4))  # Equal tokens have equal weights.
        >>> seen = Attention(4, seed=0).forward(equal)
        >>> f"{seen.attention[0, 0, 0, 0]:.4f} {seen.entropy[0, 0, 0]:.4f}"
        '0.3333 1.0986'
        """
        x = _tokens(x, len(self.weights[0]))
        q, k, v = (self._split(x @ W) for W in self.weights[:3])  # (batch, heads, tokens, d)
        scales: tuple[np.ndarray, ...] = ()
        if self.qk_norm:
            (q, of_q), (k, of_k) = _RMS.forward(q), _RMS.forward(k)
            scales = (of_q, of_k)
        logits = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])  # (batch, heads, tokens, tokens)
        capped = self.cap * np.tanh(logits / self.cap) if self.cap < np.inf else logits
        attention = special.softmax(capped, axis=-1)
        mixed = self._joined(attention @ v)
        return Attended(mixed @ self.weights[3], logits, attention, (x, q, k, v, mixed, scales))

    @_quiet
    def backward(self, seen: Attended, grad: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the derivatives of a loss with respect to the input and to each matrix.

        Parameters
        ----------
        seen : Attended
            What `forward` returned.
        grad : ndarray, shape (batch, tokens, width)
            Derivative of the loss with respect to the output.

        Returns
        -------
        grad_x : ndarray, shape (batch, tokens, width)
        grad_weights : list of ndarray
            In the order of `weights`.

        Raises
        ------
        ValueError
            If the shape of `grad` does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> attention, x = Attention(4, seed=0), np.ones((1, 3, 4))
        >>> _, weights = attention.backward(attention.forward(x), x)
        >>> dW_q, dW_k, dW_v, dW_o = weights
        >>> bool(np.abs(dW_q).max() < 1e-15)  # All tokens are equal.
        True
        """
        x, q, k, v, mixed, scales = seen.rest
        grad = _checks.gradient("grad", grad, seen.output)
        W_q, W_k, W_v, W_o = self.weights
        a, grad_mixed = seen.attention, self._split(grad @ W_o.T)
        grad_a = grad_mixed @ np.swapaxes(v, -1, -2)
        grad_z = a * (grad_a - (grad_a * a).sum(axis=-1, keepdims=True))
        if self.cap < np.inf:
            grad_z = grad_z * (1 - np.tanh(seen.logits / self.cap) ** 2)
        grad_z = grad_z / np.sqrt(q.shape[-1])
        grad_q, grad_k = grad_z @ k, np.swapaxes(grad_z, -1, -2) @ q
        if scales:
            grad_q = _RMS.backward(grad_q, q, scales[0])
            grad_k = _RMS.backward(grad_k, k, scales[1])
        parts = [self._joined(g) for g in (grad_q, grad_k, np.swapaxes(a, -1, -2) @ grad_mixed)]
        grad_x = sum(g @ W.T for g, W in zip(parts, (W_q, W_k, W_v), strict=True))
        return grad_x, [*(_outer(x, g) for g in parts), _outer(mixed, grad)]


class FeedForward:
    """Two matrices with an activation between them, phi(x U) V; or gated, (phi(x U) * (x G)) V.

    Parameters
    ----------
    width, hidden : int
    activation : str or (callable, callable)
        Name from `gradutils.activations.ACTIVATIONS`, or the pair (phi, derivative).
    gated : bool
        Multiply by a second linear map of the input: "relu" makes ReGLU, "silu" SwiGLU.
    gain : float
        Deviation of V's entries times sqrt(hidden). U and G have the variance 1 / width.
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights: one of the two is needed.

    Attributes
    ----------
    weights : list of ndarray
        U, V, or G, U, V; writable.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> import numpy as np
    >>> gated = FeedForward(8, 16, "silu", gated=True, seed=0)
    >>> [W.shape for W in gated.weights]
    [(8, 16), (8, 16), (16, 8)]
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str | tuple[Function, Function] = "relu",
        *,
        gated: bool = False,
        gain: float = 2**0.5,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        _checks.positive_integers(width=width, hidden=hidden)
        _checks.nonnegative(gain=gain)
        self.activation, self.gated = activations.get(activation), gated
        rng = _checks.generator(seed, rng)
        sizes = [(width, hidden)] * (2 if gated else 1)
        self.weights = [initializers.draw("lecun", size, rng) for size in sizes]
        self.weights.append(initializers.draw(gain, (hidden, width), rng))

    @_quiet
    def forward(self, x: np.ndarray) -> Fed:
        """Compute the branch for each token by itself.

        Parameters
        ----------
        x : ndarray, shape (batch, tokens, width)

        Returns
        -------
        Fed

        Raises
        ------
        ValueError
            If the shape does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> seen = FeedForward(2, 3, seed=0).forward(np.zeros((1, 1, 2)))
        >>> seen.output.tolist()
        [[[0.0, 0.0]]]
        """
        x = _tokens(x, len(self.weights[0]))
        *gate, U, V = self.weights
        u, g = x @ U, x @ gate[0] if gate else np.ones(1)  # (batch, tokens, hidden)
        phi = self.activation.phi(u)
        return Fed((phi * g) @ V, (x, u, phi, g))

    @_quiet
    def backward(self, seen: Fed, grad: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the derivatives of a loss with respect to the input and to each matrix.

        Parameters
        ----------
        seen : Fed
            What `forward` returned.
        grad : ndarray, shape (batch, tokens, width)
            Derivative of the loss with respect to the output.

        Returns
        -------
        grad_x : ndarray, shape (batch, tokens, width)
        grad_weights : list of ndarray
            In the order of `weights`.

        Raises
        ------
        ValueError
            If the shape of `grad` does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> branch, x = FeedForward(2, 3, "linear", seed=0), np.ones((1, 1, 2))
        >>> grad_x, _ = branch.backward(branch.forward(x), x)
        >>> U, V = branch.weights
        >>> bool(np.allclose(grad_x, x @ (U @ V).T))
        True
        """
        x, u, phi, g = seen.rest
        grad = _checks.gradient("grad", grad, seen.output)
        *gate, U, V = self.weights
        grad_hidden = grad @ V.T
        grad_u = grad_hidden * g * self.activation.derivative(u)
        grad_x, grads = grad_u @ U.T, [_outer(x, grad_u), _outer(phi * g, grad)]
        if gate:
            grad_g = grad_hidden * phi
            grad_x, grads = grad_x + grad_g @ gate[0].T, [_outer(x, grad_g), *grads]
        return grad_x, grads


class Transformer:
    """A stream of tokens h and branches F beside it: h <- c h + a F(h), with norms by placement.

    With N(h) = h / rms(h) the placements are

    ==========  =============================
    "none"      h <- c h + a F(h)
    "pre"       h <- c h + a F(N(h))
    "post"      h <- N(c h + a F(h))
    "sandwich"  h <- c h + a N(F(N(h)))
    "output"    h <- c h + a N(F(h))
    ==========  =============================

    Where a placement leaves the stream itself without a norm, one stands behind the last branch.

    Parameters
    ----------
    width, blocks, heads : int
    placement : str
        A key of `PLACEMENTS`.
    parts : sequence of str
        What a block consists of: "attention", "feedforward", or both in their order.
    skip_scale, branch_scale : float
        c and a above.
    activation, gated, gain, qk_norm, cap
        As `FeedForward` and `Attention` take them; the hidden width is 4 times the width.
    inputs : int, optional
        Width of the tokens that are read: a matrix leads from there into the stream. None for
        tokens that are the stream's start themselves.
    outputs : int, optional
        A matrix leads from the last token to so many outputs. None for no readout.
    seed : int, optional
    rng : numpy.random.Generator, optional
        What draws the weights: one of the two is needed.

    Attributes
    ----------
    branches : list of Attention or FeedForward
    weights : list of ndarray
        All matrices, from the input to the readout; writable in place.
    biases : list
        Empty, so that `networks.train` takes a Transformer as it takes an MLP.

    Raises
    ------
    ValueError
        If an argument is not one of the above, or both or none of `seed` and `rng` are given.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> import numpy as np
    >>> net = Transformer(16, blocks=3, inputs=5, outputs=2, seed=0)
    >>> run = net.forward(np.ones((4, 7, 5)))
    >>> len(run.stream), run.stream[0].shape, run.output.shape
    (7, (4, 7, 16), (4, 2))
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        heads: int = 1,
        *,
        placement: str = "pre",
        parts: Sequence[str] = ("attention", "feedforward"),
        skip_scale: float = 1.0,
        branch_scale: float = 1.0,
        activation: str | tuple[Function, Function] = "relu",
        gated: bool = False,
        gain: float = 2**0.5,
        qk_norm: bool = False,
        cap: float = np.inf,
        inputs: int | None = None,
        outputs: int | None = None,
        seed: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        _checks.positive_integers(width=width, blocks=blocks)
        _checks.names(PLACEMENTS, placement=placement)
        _checks.finite(skip_scale=skip_scale, branch_scale=branch_scale)
        rng = _checks.generator(seed, rng)
        make: dict[str, Callable[[], Attention | FeedForward]] = {
            "attention": lambda: Attention(width, heads, qk_norm=qk_norm, cap=cap, rng=rng),
            "feedforward": lambda: FeedForward(
                width, 4 * width, activation, gated=gated, gain=gain, rng=rng
            ),
        }
        if not parts or isinstance(parts, str) or not set(parts) <= make.keys():
            raise ValueError(f"parts must hold some of {', '.join(make)}; received {parts!r}")
        self.before, self.behind, self.after_sum = PLACEMENTS[placement]
        self.last_norm = not self.after_sum and placement != "none"
        self.skip_scale, self.branch_scale = skip_scale, branch_scale
        self.W_in, self.W_out = None, None
        if inputs is not None:
            _checks.positive_integers(inputs=inputs)
            self.W_in = initializers.draw("lecun", (inputs, width), rng)
        self.branches = [make[part]() for _ in range(blocks) for part in parts]
        if outputs is not None:
            _checks.positive_integers(outputs=outputs)
            self.W_out = initializers.draw("lecun", (width, outputs), rng)
        inner = [W for branch in self.branches for W in branch.weights]
        self.weights = [W for W in (self.W_in, *inner, self.W_out) if W is not None]
        self.biases: list[np.ndarray] = []

    @_quiet
    def forward(self, x: np.ndarray) -> Run:
        """Compute the stream, branch by branch.

        Parameters
        ----------
        x : ndarray, shape (batch, tokens, inputs or width)

        Returns
        -------
        Run

        Raises
        ------
        ValueError
            If the shape does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> silent = Transformer(8, blocks=2, branch_scale=0.0, seed=0)
        >>> run = silent.forward(np.ones((1, 2, 8)))
        >>> bool((run.stream[-1] == run.stream[0]).all())
        True
        """
        x = _tokens(x, self.weights[0].shape[0])
        stream = [x if self.W_in is None else x @ self.W_in]
        branches, norms = [], []
        for branch in self.branches:
            inside, before = _normed(stream[-1], self.before)
            branches.append(branch.forward(inside))
            added, behind = _normed(branches[-1].output, self.behind)
            total = self.skip_scale * stream[-1] + self.branch_scale * added
            h, after_sum = _normed(total, self.after_sum)
            stream.append(h)
            norms.append((before, behind, after_sum))
        output, last = _normed(stream[-1], self.last_norm)
        rest = (x, norms, output, last)
        if self.W_out is not None:
            output = output[:, -1] @ self.W_out  # (batch, width) @ (width, outputs)
        return Run(stream, branches, output, rest)

    @_quiet
    def backward(self, run: Run, grad_output: np.ndarray) -> Gradients:
        """Propagate the gradient of a loss from the output back along the stream.

        Parameters
        ----------
        run : Run
            What `forward` returned.
        grad_output : ndarray, of the shape of `run.output`

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError
            If the shape of `grad_output` does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> net = Transformer(8, blocks=2, placement="post", seed=0)
        >>> x = np.random.default_rng(1).standard_normal((3, 4, 8))
        >>> gradients = net.backward(net.forward(x), x)
        >>> len(gradients.delta), len(gradients.weights), gradients.input.shape
        (5, 12, (3, 4, 8))
        """
        x, norms, last_stream, last = run.rest
        grad = _checks.gradient("grad_output", grad_output, run.output)
        weights: list[np.ndarray] = []
        if self.W_out is not None:
            weights, g = [last_stream[:, -1].T @ grad], np.zeros_like(last_stream)
            g[:, -1], grad = grad @ self.W_out.T, g
        deltas = [_back(grad, last)]
        for branch, seen, (before, behind, after_sum) in zip(
            self.branches[::-1], run.branches[::-1], norms[::-1], strict=True
        ):
            total = _back(deltas[0], after_sum)
            into, grads = branch.backward(seen, _back(self.branch_scale * total, behind))
            deltas.insert(0, self.skip_scale * total + _back(into, before))
            weights = [*grads, *weights]
        grad_x = deltas[0]
        if self.W_in is not None:
            weights, grad_x = [_outer(x, grad_x), *weights], grad_x @ self.W_in.T
        return Gradients(deltas, weights, [], grad_x)


def _normed(h: np.ndarray, wanted: bool) -> tuple[np.ndarray, tuple | None]:
    """Divide by the root mean square where it is wanted, and keep what the way back needs."""
    if not wanted:
        return h, None
    n, scale = _RMS.forward(h)
    return n, (n, scale)


def _back(grad: np.ndarray, norm: tuple | None) -> np.ndarray:
    """Pull a gradient back through what `_normed` did."""
    return grad if norm is None else _RMS.backward(grad, *norm)


def _outer(x: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return dL/dW of y = x W, summed over batch and tokens."""
    return x.reshape(-1, x.shape[-1]).T @ grad.reshape(-1, grad.shape[-1])


def _tokens(x: np.ndarray, width: int) -> np.ndarray:
    x = _checks.numbers("x", x, np.float64)
    if x.ndim != 3 or 0 in x.shape or x.shape[2] != width:
        raise ValueError(f"x must have shape (batch, tokens, {width}); received {x.shape}")
    return x
