"""TLS: contexts from options, beside real handshakes, and what is told of a connection."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from nsqlite.errors import InvalidOption
from nsqlite.server import tls
from nsqlite.server.tls import BadTLS, client_context, common_name, server_context, tls_info


class Files:
    """What an option can name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.roots = self._write("roots.pem", self.authority.cert_pem.bytes())
        made = self.authority.issue_cert("localhost")
        self.cert = self._write("cert.pem", made.cert_chain_pems[0].bytes())
        self.key = self._write("key.pem", made.private_key_pem.bytes())
        other = self.authority.issue_cert("elsewhere")
        self.other_key = self._write("other.pem", other.private_key_pem.bytes())
        key = load_pem_private_key(made.private_key_pem.bytes(), None)
        form = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"tea")
        self.locked_key = self._write("locked.pem", key.private_bytes(*form))
        self.rubbish = self._write("rubbish.pem", b"no PEM")
        self.missing = str(folder / "missing.pem")

    def _write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def server(self, **options: Any) -> ssl.SSLContext:
        found = server_context(cert=self.cert, key=self.key, **options)
        assert found is not None
        return found

    def client(self, by: trustme.CA | None = None, name: str | None = None) -> ssl.SSLContext:
        """Return what a client makes connections with, with a certificate by someone."""
        made = ssl.create_default_context()
        self.authority.configure_trust(made)
        if by:
            by.issue_cert("client@example.org", common_name=name).configure_cert(made)
        return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Return both ends of a connection in memory, after their handshake."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = server.wrap_bio(up, down, server_side=True)
    there = client.wrap_bio(down, up, server_hostname="localhost")
    for end in (there, here, there, here, there):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return here, there


# What a server makes connections with


def test_no_certificate_is_no_tls() -> None:
    """A node without one has no TLS, whatever is asked of clients."""
    assert server_context() is None
    assert server_context(client_auth_policy="require-verify") is None


def test_a_certificate(files: Files) -> None:
    """Clients that know who signed it get a connection; they show none themselves."""
    here, there = shaken(files.server(), files.client(files.authority))
    there.write(b"NOP\n")
    assert b"NOP\n" == here.read(4)
    assert here.getpeercert() is None
    assert "" == common_name(here)


def test_a_client_is_not_verified_unless_asked_for(files: Files) -> None:
    """Roots alone ask for nothing."""
    here, _ = shaken(files.server(root_ca_file=files.roots), files.client(files.stranger))
    assert here.getpeercert() is None


@pytest.mark.parametrize("policy", ["require", "require-verify"])
def test_a_client_that_must_show_a_certificate(files: Files, policy: str) -> None:
    """One that the roots have signed is let in, and no other."""
    server = files.server(root_ca_file=files.roots, client_auth_policy=policy)
    here, _ = shaken(server, files.client(files.authority, "shop"))
    assert "shop" == common_name(here)
    here, _ = shaken(server, files.client(files.authority))
    assert "" == common_name(here)
    with pytest.raises(ssl.SSLError, match=r"(?i)peer did not return a certificate"):
        shaken(server, files.client())
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        shaken(server, files.client(files.stranger))


def test_clients_by_the_roots_of_the_system(files: Files) -> None:
    """Without a file of roots they are those."""
    server = files.server(client_auth_policy="require-verify")
    assert ssl.CERT_REQUIRED == server.verify_mode
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        shaken(server, files.client(files.stranger))


@pytest.mark.parametrize(
    ("options", "option", "problem"),
    [
        (lambda f: {"cert": f.cert}, "tls_cert", "tls-cert needs tls-key"),
        (lambda f: {"key": f.key}, "tls_key", "tls-key needs tls-cert"),
        (
            lambda f: {"cert": f.missing, "key": f.key},
            "tls_cert",
            "open {f.missing}: no such file or directory",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.missing},
            "tls_key",
            "open {f.missing}: no such file or directory",
        ),
        (
            lambda f: {"cert": f.cert, "key": str(f.folder)},
            "tls_key",
            "open {f.folder}: is a directory",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.other_key},
            "tls_cert",
            "private key does not match public key",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.locked_key},
            "tls_key",
            "{f.locked_key}: the key is encrypted",
        ),
        (
            lambda f: {"cert": f.rubbish, "key": f.key},
            "tls_cert",
            "no certificate and key in {f.rubbish} and {f.key} (",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.rubbish},
            "tls_cert",
            "no certificate and key in {f.cert} and {f.rubbish} (",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.key, "root_ca_file": f.missing},
            "tls_root_ca_file",
            "open {f.missing}: no such file or directory",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.key, "root_ca_file": f.rubbish},
            "tls_root_ca_file",
            "failed to append certificate to pool: {f.rubbish} (",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.key, "client_auth_policy": "require"},
            "tls_client_auth_policy",
            "tls-client-auth-policy=require needs tls-root-ca-file: a certificate",
        ),
        (
            lambda f: {"cert": f.cert, "key": f.key, "client_auth_policy": "Require"},
            "tls_client_auth_policy",
            'tls-client-auth-policy must be "require" or "require-verify", not "Require"',
        ),
        (
            lambda f: {"cert": f.cert, "key": f.key, "min_version": "tls2"},
            "tls_min_version",
            "unknown tls-min-version 'tls2': one of ssl3.0, tls1.0, tls1.1, tls1.2, tls1.3",
        ),
    ],
)
def test_options_that_cannot_be_met(
    files: Files, options: Callable[[Files], dict[str, str]], option: str, problem: str
) -> None:
    """They are refused at the start, in nsqd's words, and name what is wrong."""
    with pytest.raises(BadTLS) as info:
        server_context(**options(files))
    expected = f"failed to build TLS config - {problem.replace('{f', '{files').format(files=files)}"
    assert str(info.value).startswith(expected)
    assert isinstance(info.value, InvalidOption)
    assert option == info.value.option


# Versions


@pytest.mark.parametrize("name", ["tls1.0", "tls1.1", "tls1.2", "tls1.3"])
def test_the_least_version(files: Files, name: str) -> None:
    """It is what was named; a client that speaks none of those from it on is refused."""
    found = files.server(min_version=name)
    assert tls.VERSIONS[name] == found.minimum_version
    client = files.client()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    if name == "tls1.3":
        with pytest.raises(ssl.SSLError, match=r"(?i)unsupported protocol|protocol version"):
            shaken(found, client)
    else:
        assert "TLS1.2" == tls_info(shaken(found, client)[0]).version


def test_the_least_version_unless_told_otherwise(files: Files) -> None:
    """TLS 1.2, which nsqd has not."""
    assert ssl.TLSVersion.TLSv1_2 == files.server().minimum_version


def test_a_version_that_is_not_to_be_had(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL says what it speaks; its older ones know versions that newer ones do not."""
    unknown: Any = 0x0100
    monkeypatch.setitem(tls.VERSIONS, "ssl3.0", unknown)
    with pytest.raises(BadTLS, match=r"tls-min-version ssl3.0 is not to be had with OpenSSL"):
        files.server(min_version="ssl3.0")


# What a node asks other servers with


def test_other_servers_are_verified(files: Files) -> None:
    """Against the roots that are named, or those of the system."""
    client = client_context(root_ca_file=files.roots, min_version="tls1.3")
    assert ssl.TLSVersion.TLSv1_3 == client.minimum_version
    here, there = shaken(files.server(), client)
    here.write(b"OK")
    assert b"OK" == there.read(2)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate verify failed"):
        shaken(files.server(), client_context())
    with pytest.raises(BadTLS, match="no such file"):
        client_context(root_ca_file=files.missing)


# What is told of a connection


@pytest.mark.parametrize(
    ("version", "ciphers", "expected"),
    [
        (ssl.TLSVersion.TLSv1_3, "DEFAULT", ("TLS1.3", "TLS_AES_256_GCM_SHA384")),
        (
            ssl.TLSVersion.TLSv1_2,
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            ("TLS1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ),
    ],
)
def test_what_is_told(
    files: Files, version: ssl.TLSVersion, ciphers: str, expected: tuple[str, str]
) -> None:
    """The version and the cipher suite, by the names that Go has for them."""
    client = files.client()
    client.maximum_version = version
    client.set_ciphers(ciphers)
    for end in shaken(files.server(), client):
        assert (*expected, "", True) == tls_info(end)


def test_what_is_told_before_a_handshake(files: Files) -> None:
    """Nothing is known yet."""
    one = files.client().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    found = tls_info(one)
    assert ("", "") == (found.cipher_suite, found.negotiated_protocol)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
        ("ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
        ("ECDHE-RSA-DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"),
        ("ECDHE-RSA-RC4-SHA", "TLS_ECDHE_RSA_WITH_RC4_128_SHA"),
        ("AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256"),
        ("AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA"),
        ("DHE-RSA-AES128-GCM-SHA256", "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-ECDSA-AES128-CCM8", "ECDHE-ECDSA-AES128-CCM8"),
        ("PSK-AES128-CBC-SHA", "PSK-AES128-CBC-SHA"),
    ],
)
def test_names_of_cipher_suites(name: str, expected: str) -> None:
    """Go's name where there is one, else that of OpenSSL."""
    assert expected == tls._suite(name)
