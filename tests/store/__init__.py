"""Tests of `nsqlite.store`; a package, so that its files may be named like those above."""
