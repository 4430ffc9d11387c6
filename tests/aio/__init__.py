"""Tests of `nsqlite.aio`; a package, so that its files may be named like those above."""
