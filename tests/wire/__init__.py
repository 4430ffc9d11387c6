"""Tests of `nsqlite.wire`; a package, so that its files may be named like those elsewhere."""
