"""Certificates of an authority that nobody knows."""

from pathlib import Path

import trustme


def write_certificate(folder: Path, *names: str) -> Path:
    """Writes cert.pem and key.pem for *names*, hosts or addresses, and gives the file with their authority."""
    authority = trustme.CA()
    signed = authority.issue_cert(*names)
    signed.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    signed.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return folder / "ca.pem"
