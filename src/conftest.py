"""The doctests of a module run where its framework is."""

import importlib.util

MODULES = {
    "jax": ["gradutils/_backends/jax.py"],
    "torch": ["gradutils/_backends/torch.py", "gradutils/_torch/*", "gradutils/torch_monitor.py"],
}
collect_ignore_glob = [
    module
    for framework, modules in MODULES.items()
    if importlib.util.find_spec(framework) is None
    for module in modules
]
