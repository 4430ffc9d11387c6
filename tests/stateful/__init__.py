"""Whole-system tests: a model, threads, signals, forks and a soak."""
