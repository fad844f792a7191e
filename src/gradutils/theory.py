"""Mean-field theory of wide random networks: what one layer does to signals and gradients.

A layer computes h = W phi(h_previous) + b with W_ij ~ N(0, sigma_w^2 / fan_in) and
b_i ~ N(0, sigma_b^2). In the limit of infinite width every pre-activation is Gaussian, so each
quantity below is an average over one or two standard normal variables. `activation` is a name
from `gradutils.activations.ACTIVATIONS` or a pair (phi, derivative); sigma_w and sigma_b are
standard deviations. Sources: Poole et al. 2016, Schoenholz et al. 2017.
"""

from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from gradutils import _checks, activations
from gradutils.activations import Activation, Function

ActivationLike = str | tuple[Function, Function]

_STEP = 1 / 32  # This is the quadrature's step; test_theory.py measures how accurate it is.
_TINY, _HUGE = 1e-12, 1e12  # A second moment outside these bounds counts as 0 or infinite.
_LARGEST = _HUGE**0.5  # No scale of weights or biases may be larger.


@lru_cache
def _half_line(power: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of double-exponential quadrature on the half-line.

    The integral of f(r) r^power exp(-r^2/2) over r > 0 is sum(weights * f(nodes)). The
    substitution r = exp(t - exp(-t)) makes the integrand vanish double-exponentially at both ends,
    where the trapezoidal rule converges fastest (Takahasi and Mori 1974).
    """
    t = np.arange(-4.25, 2.5, _STEP)
    r = np.exp(t - np.exp(-t))
    return r, _STEP * r * (1 + np.exp(-t)) * r**power * np.exp(-(r**2) / 2)


def gaussian_average(f: Function, q: float = 1.0) -> float:
    """Return the mean of f(sqrt(q) z) over z ~ N(0, 1).

    Double-exponential quadrature on each side of zero, so a kink or a jump at zero (ReLU, ELU, SELU
    and their derivatives) costs no accuracy. For the activations of the table the relative error
    is below 1e-12 up to q = 100 (tests/package/test_theory.py).

    Parameters
    ----------
    f : callable
        ndarray -> ndarray of the same shape.
    q : float
        Variance of the argument, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `f` cannot be called, or `q` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> f"{gaussian_average(lambda h: np.maximum(h, 0) ** 2, q=3.0):.12f}"
    '1.500000000000'
    """
    _checks.callables(f=f)
    _checks.nonnegative(q=q)
    r, weights = _half_line(0)
    h = np.sqrt(q) * r
    return float(weights @ (f(h) + f(-h)) / np.sqrt(2 * np.pi))


def _pair_average(f: Function, g: Function, q: float, c: float) -> float:
    """Return the mean of f(u) g(v) for Gaussian u, v of variance q and correlation c.

    In polar coordinates the kinks at u = 0 and v = 0 are rays. Gauss-Legendre on each sector
    between them and a double-exponential rule along the radius keep the accuracy of smooth
    functions.
    """
    theta = np.arccos(np.clip(c, -1, 1))
    rays = np.sort([np.pi / 2, 3 * np.pi / 2, theta + np.pi / 2, (theta - np.pi / 2) % (2 * np.pi)])
    edges = np.append(rays, rays[0] + 2 * np.pi)
    points, weights = np.polynomial.legendre.leggauss(48)
    angle = (edges[:-1, None] + (points + 1) * np.diff(edges)[:, None] / 2).ravel()
    arc = (np.diff(edges)[:, None] / 2 * weights).ravel() / (2 * np.pi)
    r, radial = _half_line(1)
    radius = np.sqrt(q) * r[:, None]
    u, v = radius * np.cos(angle), radius * np.cos(angle - theta)
    return float(radial @ (f(u) * g(v)) @ arc)


def second_moment_map(
    activation: ActivationLike, q: float, sigma_w: float, sigma_b: float = 0.0
) -> float:
    """Return the second moment of the next layer's pre-activations.

    q_next = sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2.

    Parameters
    ----------
    activation : str or (callable, callable)
    q : float
        Second moment of this layer's pre-activations.
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a standard deviation is negative or above 1e6, or the activation is no name of the table.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> f"{second_moment_map('relu', 1.0, sigma_w=2**0.5):.6f}"
    '1.000000'
    """
    _checks.within(0, _LARGEST, sigma_w=sigma_w, sigma_b=sigma_b)
    phi = activations.get(activation).phi
    return sigma_w**2 * gaussian_average(lambda h: phi(h) ** 2, q) + sigma_b**2


def fixed_point(activation: ActivationLike, sigma_w: float, sigma_b: float = 0.0) -> float:
    """Return q*, where the second moment settles in a deep network.

    It is the limit of `second_moment_map` started at q = 1 (input of unit variance): 0 if the
    signal dies, inf if it grows without bound, 1 if every q stays where it is.

    Parameters
    ----------
    activation : str or (callable, callable)
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a standard deviation is negative or not finite.

    Examples
    --------
    >>> f"{fixed_point('tanh', 5 / 3):.3f}"
    '1.178'
    >>> fixed_point("relu", 1.5)
    inf
    """

    def growth(log_q: float) -> float:
        q = np.exp(log_q)
        return second_moment_map(activation, q, sigma_w, sigma_b) / q - 1

    step = growth(0.0)
    if abs(step) < 1e-12:
        return 1.0
    # The map increases with q, so the iteration is monotone and stops at the first root it meets.
    edges = np.linspace(0, np.log(_HUGE if step > 0 else _TINY), 61)
    for near, far in zip(edges[:-1], edges[1:], strict=True):
        if growth(far) * step <= 0:
            return float(np.exp(brentq(growth, near, far, xtol=1e-14)))
    return np.inf if step > 0 else 0.0


def chi(
    activation: ActivationLike, sigma_w: float, sigma_b: float = 0.0, *, q: float | None = None
) -> float:
    """Return the backward factor: what one layer does to the squared norm of the gradient.

    chi = sigma_w^2 E[phi'(sqrt(q) z)^2]. Below 1 gradients vanish exponentially with depth,
    above 1 they explode.

    Parameters
    ----------
    activation : str or (callable, callable)
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.
    q : float, optional
        Second moment of the pre-activations; the fixed point q* by default.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If a standard deviation is negative or above 1e6, or the activation is no name of the table.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> f"{chi('relu', 2**0.5):.6f}"
    '1.000000'
    >>> f"{chi('tanh', 5 / 3):.3f}"
    '1.210'
    """
    _checks.within(0, _LARGEST, sigma_w=sigma_w, sigma_b=sigma_b)
    if q is None:
        # q* = 0 asks for the slopes just beside zero, and q* = inf for those far from it.
        q = float(np.clip(fixed_point(activation, sigma_w, sigma_b), 1e-30, 1e30))
    derivative = activations.get(activation).derivative
    return sigma_w**2 * gaussian_average(lambda h: derivative(h) ** 2, q)


def critical_sigma_w(activation: ActivationLike, sigma_b: float = 0.0) -> float:
    """Return the sigma_w of the critical line: chi < 1 just below it, chi > 1 just above.

    On the line chi = 1, unless chi jumps there: GELU and SiLU without bias leave q* = 0 for
    q* = inf at once, and chi jumps over 1 with it.

    Parameters
    ----------
    activation : str or (callable, callable)
    sigma_b : float
        Standard deviation of the biases, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If chi stays on one side of 1 for all sigma_w from 0.05 to 50.

    Examples
    --------
    >>> f"{critical_sigma_w('tanh'):.4f}"
    '1.0000'
    >>> f"{critical_sigma_w('tanh', sigma_b=0.05**0.5) ** 2:.3f}"
    '1.761'
    """

    def excess(sigma_w: float) -> float:
        return chi(activation, sigma_w, sigma_b) - 1

    grid = np.geomspace(0.05, 50, 61)
    if excess(grid[0]) < 0:
        for low, high in zip(grid[:-1], grid[1:], strict=True):
            if excess(high) >= 0:
                # Near a flat root the excess is rounding noise, and brentq falls back to bisection.
                return float(brentq(excess, low, high, xtol=1e-13, maxiter=1000))
    raise ValueError(f"activation {activation!r} has no critical sigma_w between 0.05 and 50")


def correlation_map(
    activation: ActivationLike, c: float, sigma_w: float, sigma_b: float = 0.0
) -> float:
    """Return the correlation of two inputs' pre-activations one layer on, at q = q*.

    c_next = (sigma_w^2 E[phi(u) phi(v)] + sigma_b^2) / q*, with u and v Gaussian of variance q*
    and correlation c.

    Parameters
    ----------
    activation : str or (callable, callable)
    c : float
        Correlation in this layer, -1 to 1.
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If q* is 0 or infinite: there is no signal to correlate.

    Examples
    --------
    >>> import numpy as np
    >>> f"{np.pi * correlation_map('relu', 0.0, sigma_w=2**0.5):.9f}"
    '1.000000000'
    """
    _checks.within(-1, 1, c=c)
    q = fixed_point(activation, sigma_w, sigma_b)
    if not 0 < q < np.inf:
        raise ValueError(
            f"sigma_w and sigma_b must give a finite q* > 0; received {sigma_w!r} and "
            f"{sigma_b!r}, where q* = {q}"
        )
    return _correlation_step(activations.get(activation), c, sigma_w, sigma_b, q)


def _correlation_step(act: Activation, c: float, sigma_w: float, sigma_b: float, q: float) -> float:
    return (sigma_w**2 * _pair_average(act.phi, act.phi, q, c) + sigma_b**2) / q


def correlation_fixed_point(
    activation: ActivationLike, sigma_w: float, sigma_b: float = 0.0
) -> float:
    """Return c*, the correlation that two different inputs reach in a deep network.

    1 in the ordered phase, where the network forgets its input; below 1 in the chaotic phase.

    Parameters
    ----------
    activation : str or (callable, callable)
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If q* is 0 or infinite: there is no signal to correlate.

    Examples
    --------
    >>> correlation_fixed_point("tanh", 1.0, sigma_b=0.3)
    1.0
    >>> f"{correlation_fixed_point('tanh', 2**0.5, sigma_b=0.05**0.5):.3f}"
    '0.744'
    """
    correlation_map(activation, 1.0, sigma_w, sigma_b)  # This checks the arguments.
    act = activations.get(activation)
    q = fixed_point(activation, sigma_w, sigma_b)

    def drift(c: float) -> float:
        return _correlation_step(act, c, sigma_w, sigma_b, q) - c

    just_below = 1 - 1e-6  # c = 1 is always a fixed point; we look for another one below it.
    if chi(activation, sigma_w, sigma_b, q=q) <= 1 or drift(just_below) >= 0:
        return 1.0
    return 0.0 if abs(drift(0.0)) < 1e-12 else float(brentq(drift, 0.0, just_below, xtol=1e-13))


def depth_scale(activation: ActivationLike, sigma_w: float, sigma_b: float = 0.0) -> float:
    """Return xi, the layers in which the distance of the correlation from c* falls e-fold.

    xi = -1 / ln(sigma_w^2 E[phi'(u) phi'(v)]) at c*; in the ordered phase that is -1 / ln(chi).
    It is inf on the critical line, and where q* is infinite. Networks train up to a depth of about
    6 xi (Schoenholz et al. 2017, an observation).

    Parameters
    ----------
    activation : str or (callable, callable)
    sigma_w, sigma_b : float
        Standard deviations of weights (per sqrt(fan-in)) and biases, >= 0.

    Returns
    -------
    float
        In layers.

    Raises
    ------
    ValueError
        If a standard deviation is negative or above 1e6, or the activation is no name of the table.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> f"{depth_scale('tanh', 1.0, sigma_b=0.05**0.5):.2f}"
    '3.63'
    """
    q = fixed_point(activation, sigma_w, sigma_b)
    slope = chi(activation, sigma_w, sigma_b)
    if q == np.inf:
        return np.inf
    if slope > 1 and q > 0:
        c = correlation_fixed_point(activation, sigma_w, sigma_b)
        derivative = activations.get(activation).derivative
        slope = sigma_w**2 * _pair_average(derivative, derivative, q, c)
    if abs(slope - 1) < 1e-9:
        return np.inf
    return float(-1 / np.log(slope)) if slope > 0 else 0.0


def forward_gain(activation: ActivationLike) -> float:
    """Return g, the sigma_w that keeps a second moment of 1: g^2 E[phi(z)^2] = 1.

    Parameters
    ----------
    activation : str or (callable, callable)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the activation is no name of the table.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> f"{forward_gain('relu'):.4f}"
    '1.4142'
    """
    return second_moment_map(activation, 1.0, sigma_w=1.0) ** -0.5


def backward_factor(activation: ActivationLike) -> float:
    """Return chi of a network held at q = 1 by the forward gain: g^2 E[phi'(z)^2].

    It is 1 only for scale-invariant activations (linear, ReLU, leaky ReLU): in general the gain
    that holds activations does not hold gradients.

    Parameters
    ----------
    activation : str or (callable, callable)

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the activation is no name of the table.
    TypeError
        If the activation is neither a name nor a pair of callables.

    Examples
    --------
    >>> f"{backward_factor('relu'):.4f} {backward_factor('tanh'):.4f}"
    '1.0000 1.1778'
    """
    return chi(activation, forward_gain(activation), q=1.0)
