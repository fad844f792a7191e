"""Facts of the chapter on optimisers: what Muon does to singular values."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tools.chapters import definitions

HERE = definitions("12_optimizers")


@given(st.integers(0, 10_000))
def test_muon_brings_singular_values_near_one_and_keeps_directions(seed):
    # The polynomial of five passes stays in [0.67, 1.21] for relative singular values above 0.002
    # (a scan of the scalar map); eight values from 0.05 to 1 lie well above.
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(2))
    out = U.T @ HERE.newton_schulz(U * np.geomspace(0.05, 1, 8) @ V.T) @ V
    np.testing.assert_allclose(out, np.diag(np.diag(out)), atol=1e-10)
    assert np.diag(out).min() > 0.6 and np.diag(out).max() < 1.25
