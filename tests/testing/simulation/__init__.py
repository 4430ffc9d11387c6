"""Tests of simulations; a package, so that its files may be named like those elsewhere."""
