"""What all tests of the backends share."""

import keras

# Plain torch modules have nothing to do with Keras, and the page runs each backend by itself.
of_torch = ["test_torch_modules.py", "test_torch_monitor.py", "test_page.py", "test_monitor.py"]
collect_ignore = of_torch if keras.backend.backend() == "jax" else []
