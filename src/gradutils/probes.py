"""One batch through a model: what every layer passes forward, and what comes back.

The model is left as it was. Needs the framework that the model is made with, and no other.
"""

from collections.abc import Callable
from typing import Any

from gradutils import _checks
from gradutils._batches import Batch, one_batch
from gradutils._frameworks import compiled_alone, is_torch_module
from gradutils._keras_optimizers import optimizer_state, optimizer_twin
from gradutils._measures import SATURATION
from gradutils._records import Head, LayerRecord, OptimizerRecord, OwnLoss, Probe

__all__ = [
    "SATURATION",
    "Batch",
    "Head",
    "LayerRecord",
    "OptimizerRecord",
    "OwnLoss",
    "Probe",
    "one_batch",
    "optimizer_state",
    "optimizer_twin",
    "probe",
]


def probe(
    model: Any,
    x: Any,
    y: Any = None,
    loss: Callable | str | None = None,
    *,
    optimizer: Any = None,
    batch_size: int = 64,
    loss_scale: float | None = None,
) -> Probe:
    """Run one batch forward and backward in training mode and measure every layer.

    Nothing of the model changes: weights, normalisation statistics, random seeds, optimiser and
    compiled functions are as before.

    Parameters
    ----------
    model : keras.Model or torch.nn.Module
        A Keras model is built, and compiled unless `loss` is given.
    x : array, list or dict of arrays, tf.data.Dataset, keras.utils.PyDataset or DataLoader
        Of arrays, `batch_size` evenly spaced samples are used; of a dataset, the first batch. What
        `one_batch` returned is taken as it is.
    y : array, list or dict of arrays, optional
        Targets; None if `x` is a dataset.
    loss : callable or str, optional
        (y, predictions) -> loss of each sample or of the batch, or a name that Keras knows; the
        compiled loss by default. Sample weights of a dataset count, as in `fit`. A torch module
        needs one, called as torch calls it: (predictions, y) -> loss.
    optimizer : torch.optim.Optimizer, optional
        That of a torch module; its learning-rate scheduler is not seen. A Keras model is compiled
        with its own.
    batch_size : int
    loss_scale : float, optional
        Factor on the loss during the backward pass, divided out of all results. That of the
        optimiser by default, 1 if it has none.

    Returns
    -------
    Probe

    Raises
    ------
    ValueError
        If the model is not built, there is no loss, the data are empty or hold NaN or inf, or
        they do not fit the model or the loss. NaN in the weights is a result, not an error.

    Examples
    --------
    >>> import keras, numpy as np
    >>> last = keras.layers.Dense(1, "sigmoid")
    >>> model = keras.Sequential([keras.Input((4,)), last])
    >>> x, y = np.ones((8, 4)), np.zeros((8, 1))
    >>> probe(model, x, y, loss="binary_crossentropy").layers[0].kind
    'Dense'
    """
    if loss_scale is not None:
        _checks.positive(loss_scale=loss_scale)
    if is_torch_module(model):
        from gradutils._torch import probe as torch_probe  # This loads torch.

        options = {"optimizer": optimizer, "batch_size": batch_size, "loss_scale": loss_scale}
        return torch_probe.probe(model, x, y, loss, **options)
    compiled_alone(optimizer)
    batch = one_batch(x, y, batch_size)

    from gradutils import _keras_probe  # This loads Keras.

    return _keras_probe.probe(model, batch, loss, loss_scale)
