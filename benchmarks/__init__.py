"""Measurements that take minutes, and so are not tests."""
