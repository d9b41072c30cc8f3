"""Certificates of the rack's own: who accepts whom."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from tbcluster.errors import FetchError
from tbcluster.weights.tls import (
    certificate_bytes,
    client_context,
    new_certificate,
    server_context,
    shows_one_of,
)
from tests.doubles.tls_peers import TlsPeer


def meet(
    server: TlsPeer, client: TlsPeer, server_accepts: list[str], client_accepts: list[str]
) -> str | None:
    """The protocol that the two agree on; None if either refuses the other."""
    context = server_context(server.files, server_accepts)
    ends = socket.socketpair()
    for end in ends:
        end.settimeout(10.0)
    said: list[str | None] = [None]

    def answer() -> None:
        try:
            with context.wrap_socket(ends[0], server_side=True) as secured:
                accepted = map(certificate_bytes, server_accepts)
                if shows_one_of(secured, accepted) and secured.recv(1):
                    secured.sendall(b"b")
                    said[0] = secured.version()
        except OSError:
            pass
        finally:
            ends[0].close()

    thread = threading.Thread(target=answer)
    thread.start()
    is_heard = False
    try:
        with client_context(client.files, client_accepts).wrap_socket(ends[1]) as secured:
            secured.sendall(b"a")
            is_heard = secured.recv(1) == b"b"
    except OSError:
        pass
    finally:
        ends[1].close()
        thread.join()
    return said[0] if is_heard else None


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> list[TlsPeer]:
    return [TlsPeer.at(tmp_path_factory.mktemp(name)) for name in ("one", "two", "three")]


def test_those_who_were_told_of_each_other_speak_tls_1_3(peers: list[TlsPeer]) -> None:
    one, two, three = peers
    everyone = [three.certificate, two.certificate, one.certificate]
    assert meet(one, two, everyone, [one.certificate]) == "TLSv1.3"


def test_either_end_refuses_a_stranger(peers: list[TlsPeer]) -> None:
    one, two, three = peers
    assert meet(one, two, [three.certificate], [one.certificate]) is None
    assert meet(one, two, [two.certificate], [three.certificate]) is None
    assert meet(one, two, [], [one.certificate]) is None
    assert meet(one, two, [two.certificate], []) is None


def test_nobody_signs_for_others(peers: list[TlsPeer], tmp_path: Path) -> None:
    """A certificate that is signed with an accepted one's key is a stranger's."""
    one, two, _ = peers
    forged = signed_by(two, tmp_path)
    assert meet(one, forged, [two.certificate], [one.certificate]) is None


def test_a_name_that_is_the_same_does_not_matter(peers: list[TlsPeer], tmp_path: Path) -> None:
    one, two, _ = peers
    namesake = signed_by(two, tmp_path, is_self_signed=True)
    assert meet(one, namesake, [two.certificate], [one.certificate]) is None
    both = [two.certificate, namesake.certificate]
    assert meet(one, namesake, both, [one.certificate]) == "TLSv1.3"
    assert meet(one, two, both, [one.certificate]) == "TLSv1.3"


def test_older_protocols_are_refused(peers: list[TlsPeer]) -> None:
    context = server_context(peers[0].files, [])
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.num_tickets == 0


def test_clocks_may_differ() -> None:
    certificate = x509.load_pem_x509_certificate(new_certificate()[0].encode())
    assert certificate.not_valid_before_utc < datetime(2001, 1, 1, tzinfo=UTC)
    assert certificate.not_valid_after_utc > datetime(9999, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "no certificate", "ü", "-" * 20_000])
def test_what_is_no_certificate_is_told(text: str, peers: list[TlsPeer]) -> None:
    with pytest.raises(FetchError, match="certificate cannot be used"):
        certificate_bytes(text)
    with pytest.raises(FetchError, match="certificate cannot be used"):
        client_context(peers[0].files, [text])


def test_missing_files_are_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.pem")
    with pytest.raises(FetchError, match="this node's certificate cannot be used"):
        client_context((missing, missing), [])
    with pytest.raises(FetchError, match="this node's certificate cannot be used"):
        client_context((), [])


def signed_by(peer: TlsPeer, folder: Path, *, is_self_signed: bool = False) -> TlsPeer:
    """A certificate in the peer's name, with another key."""
    theirs = x509.load_pem_x509_certificate(peer.certificate.encode())
    their_key = serialization.load_pem_private_key(Path(peer.files[1]).read_bytes(), None)
    assert isinstance(their_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(theirs.subject if is_self_signed else own_name)
        .issuer_name(theirs.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .sign(key if is_self_signed else their_key, SHA256())
    )
    own, chain = folder / "own.pem", certificate.public_bytes(serialization.Encoding.PEM)
    # The whole chain, as one who forges would show it.
    own.write_bytes(chain if is_self_signed else chain + peer.certificate.encode())
    key_path = folder / "own-key.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return TlsPeer(chain.decode(), (str(own), str(key_path)))
