"""Facts of the chapter on clipping: what keeps the direction, and what a few shortened steps do."""

import numpy as np
import pytest

from gradutils import datasets, networks


@pytest.mark.parametrize("seed", range(3, 6))
def test_clipping_separates_training_from_nan_in_other_draws(seed):
    data = datasets.digits(np.random.default_rng(0))
    x, y = data.x_train[:512], np.eye(10)[data.y_train[:512]]
    losses = {}
    for limit in (np.inf, 3.0):
        net = networks.MLP([64] * 16 + [10], "relu", "he", branch_scale=0.5, seed=seed)
        losses[limit] = networks.train(
            net, x, y, loss=networks.squared_error, learning_rate=0.3, epochs=3,
            rng=np.random.default_rng(seed), clip_norm=limit,
        )[-1]  # fmt: skip
    assert np.isnan(losses[np.inf])
    assert losses[3.0] < 0.2  # about 100 at the start
