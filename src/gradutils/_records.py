"""What was measured of a model, and what became of it in a few steps; no framework is needed."""

from dataclasses import dataclass, field

import numpy as np

_NOTHING = np.empty(0)


def _nothing() -> np.ndarray:
    return _NOTHING


@dataclass(frozen=True)
class LayerRecord:
    """What one layer did with the batch. Norms are Euclidean, over the whole batch.

    Attributes
    ----------
    name, kind : str
        Path of the layer in the model, and its class.
    activation : str
        Name of its activation function; "" if it has none.
    parameters : int
        Trainable parameters of its own; 0 for a layer that is frozen or has none.
    input_second_moment : float
        Mean square of what the layer receives, at its first call; NaN if that is not floating.
    second_moment, spread : float
        Mean square and standard deviation of the outputs.
    backward : float
        Norm of the gradient of the loss with respect to the layer's outputs; with respect to its
        logits for a sigmoid or softmax that feeds a cross-entropy, as Keras computes it.
    backward_by_call : ndarray, shape (calls,)
        The same for each call: the time steps of a recurrent cell, the uses of a shared layer.
    weight_norm, gradient_norm : float
        Norms of the trainable weights and of their gradient; NaN without trainable weights.
    update_ratio : float
        Norm of the optimiser's next update over the norm of the weights; NaN without an optimiser.
    dead : float
        Share of units that a rectifier holds at zero for every sample; NaN for other layers.
    saturated : float
        Share of outputs in the outer 3 % of tanh's or sigmoid's range; NaN for other layers.
    nonfinite_weights, nonfinite_outputs, nonfinite_backward : int
        Counts of NaN and inf.
    input_zeros : float
        Share of what the layer receives, at its first call, that is exactly 0.
    nonfinite_rows : float
        Share of the batch's rows whose backward signal holds NaN or inf.
    disconnected : bool
        Whether the loss does not depend on any of the layer's weights: their gradient is None.
    equal_units : bool
        Whether a weight matrix gives all of several units the same column, and the same gradient.
    equal_weights : bool
        Whether a weight matrix gives all of several units the same column, whatever the gradient.
    feature_means, feature_stds : ndarray, shape (features,)
        Mean and standard deviation of each feature (the last axis) of what the layer receives, at
        its first call; empty if that is not floating.
    weight_dtype : str
        Type of the trainable weights; "" without them.
    compute_dtype : str
        Type in which the layer computes; "" if that is not known.
    units : int
        Size of the last axis of the outputs.
    """

    name: str
    kind: str
    activation: str
    parameters: int
    input_second_moment: float
    second_moment: float
    spread: float
    backward: float
    backward_by_call: np.ndarray
    weight_norm: float
    gradient_norm: float
    update_ratio: float
    dead: float
    saturated: float
    nonfinite_weights: int
    nonfinite_outputs: int
    nonfinite_backward: int
    input_zeros: float = 0.0
    nonfinite_rows: float = 0.0
    disconnected: bool = False
    equal_units: bool = False
    equal_weights: bool = False
    feature_means: np.ndarray = field(default_factory=_nothing)
    feature_stds: np.ndarray = field(default_factory=_nothing)
    weight_dtype: str = ""
    compute_dtype: str = ""
    units: int = 0


@dataclass(frozen=True)
class Head:
    """One array that the model returns, with its targets and its loss.

    Attributes
    ----------
    outputs : ndarray, shape (samples, ...)
        In training mode.
    targets : ndarray, shape (samples, ...), or None
        None if they cannot be told.
    loss : str
        Keras' name of the loss, such as "mean_squared_error"; "" for one's own or for none.
    from_logits : bool
        Whether that loss takes logits.
    activation : str
        Of the layer that returns the array: "linear" if it has none, "" if it cannot be told.
    layer : str
        Path of that layer; "" if it cannot be told.
    has_logits : bool
        Whether Keras keeps the logits of a last sigmoid or softmax, and takes them for the loss.
    sample_losses : ndarray, shape (samples,)
        Loss of each sample; empty if the loss gives one number for the batch.
    masked_losses : float
        Share of the losses that are not finite which stand at masked (padded) steps; NaN without
        a mask, or where all are finite.
    class_shares : ndarray, shape (classes,)
        Share of each class among all targets given; empty unless the loss is a cross-entropy.
    """

    outputs: np.ndarray
    targets: np.ndarray | None = None
    loss: str = ""
    from_logits: bool = False
    activation: str = ""
    layer: str = ""
    has_logits: bool = False
    sample_losses: np.ndarray = field(default_factory=_nothing)
    masked_losses: float = np.nan
    class_shares: np.ndarray = field(default_factory=_nothing)


@dataclass(frozen=True)
class OwnLoss:
    """What a loss that Keras does not know says at outputs of our choice; NaN where it fails.

    Attributes
    ----------
    rows, pairs, together : float
        Of two or three samples with different targets: the mean loss of each alone, of each target
        with each output, and the loss of all as one batch. Where there are as many targets as
        outputs, the outputs are made up: near the targets, so that the pairs differ.
    at_targets : float
        Where the outputs equal the targets.
    beside_targets : tuple of float
        Where the outputs lie half a standard deviation below and above the targets.
    at_logits : float
        Where the outputs are -20 for targets of 0 and 20 for targets of 1; NaN for other targets.
    against : tuple of float
        Where the outputs are opposite to targets of 0 and 1, and then further off: logits of 20 and
        200, or, from a sigmoid or softmax, probabilities of 1e-3 and 1e-6; NaN for other targets.
    clipped : float
        Where the outputs are clipped to [0.01, 0.99].
    swapped : float
        With outputs and targets exchanged.
    """

    rows: float = np.nan
    pairs: float = np.nan
    together: float = np.nan
    at_targets: float = np.nan
    beside_targets: tuple[float, float] = (np.nan, np.nan)
    at_logits: float = np.nan
    against: tuple[float, float] = (np.nan, np.nan)
    clipped: float = np.nan
    swapped: float = np.nan


@dataclass(frozen=True)
class OptimizerRecord:
    """What is known of the optimiser without a step.

    Attributes
    ----------
    kind : str
        Its class, without a loss scale around it.
    iterations : int
        Steps taken so far.
    rate, later_rate : float
        The learning rate now, and the largest one that its schedule reaches 10 to 10,000 steps
        later.
    epsilon : float
        NaN if the optimiser has none.
    """

    kind: str
    iterations: int
    rate: float
    later_rate: float
    epsilon: float = np.nan


@dataclass(frozen=True)
class Probe:
    """What one batch showed.

    Attributes
    ----------
    loss : float
        In training mode, penalties included.
    layers : list of LayerRecord
        In the order of their first call.
    outputs : int
        Number of arrays that the model returns.
    inference_loss : float
        Loss of the same batch with ``training=False``.
    heads : list of Head
        One for each array that the model returns.
    own_loss : OwnLoss or None
        None where Keras knows the loss.
    penalties : dict of str to float
        Layer path -> sum of what its regularisers and its `add_loss` add to the loss.
    regularization : float
        The part of the penalties that comes from weight regularisers.
    optimizer : OptimizerRecord or None
    curvature : float
        Largest absolute second derivative of the outputs with respect to the inputs; NaN unless
        the loss itself differentiates twice.
    affine : bool
        Whether the outputs (their logits, where Keras keeps them) are an affine function of the
        inputs.
    row_sizes : ndarray, shape (samples,)
        Root mean square of each sample's inputs; empty unless the inputs are one floating array.
    unseen : list of str
        What could not be measured, in sentences.
    """

    loss: float
    layers: list[LayerRecord]
    outputs: int
    inference_loss: float = np.nan
    heads: list[Head] = field(default_factory=list)
    own_loss: OwnLoss | None = None
    penalties: dict[str, float] = field(default_factory=dict)
    regularization: float = 0.0
    optimizer: OptimizerRecord | None = None
    curvature: float = np.nan
    affine: bool = False
    row_sizes: np.ndarray = field(default_factory=_nothing)
    unseen: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> LayerRecord:
        """Return the record whose layer path is that name, or is the only one to end in it."""
        found = [layer for layer in self.layers if layer.name == name]
        found = found or [w for w in self.layers if w.name.endswith((f"/{name}", f".{name}"))]
        if not found:
            known = ", ".join(layer.name for layer in self.layers)
            raise KeyError(f"no layer {name!r}; the model called {known}")
        if len(found) > 1:
            several = ", ".join(layer.name for layer in found)
            raise KeyError(f"layer {name!r} is ambiguous; name one of {several}")
        return found[0]


@dataclass(frozen=True)
class Trial:
    """What a few training steps on one batch did.

    Attributes
    ----------
    losses : ndarray, shape (steps + 1,)
        Loss of the batch in training mode, before each step and after the last. Random layers draw
        the same for the last value as for the first.
    inference_losses : ndarray, shape (2,)
        Loss of the batch in inference mode, before the first step and after the last.
    layer_names : list of str
        Paths of the layers that hold trainable weights of their own.
    update_ratios : ndarray, shape (steps, layers)
        Norm of each step's change of a layer's weights over the norm of these weights; 0 where
        nothing moves, NaN once weights are NaN.
    learning_rates : ndarray, shape (steps,)
        The rate that the optimiser used.
    output_spreads : ndarray, shape (2,)
        Standard deviation of the outputs over the samples, in inference mode, root mean square over
        the units; before the first step and after the last. 0 for an output that is constant.
    output_sizes : ndarray, shape (2,)
        Root mean square of the same outputs.
    dead : ndarray, shape (2,)
        Largest share of a rectifying layer's units that are zero for every sample, in inference
        mode, before the first step and after the last; NaN without such a layer.
    """

    losses: np.ndarray
    inference_losses: np.ndarray
    layer_names: list[str]
    update_ratios: np.ndarray
    learning_rates: np.ndarray
    output_spreads: np.ndarray
    output_sizes: np.ndarray
    dead: np.ndarray
