"""Doctests of what needs torch run where torch is."""

import importlib.util

with_torch = ["gradutils/_torch/*", "gradutils/torch_monitor.py"]
collect_ignore_glob = [] if importlib.util.find_spec("torch") else with_torch
