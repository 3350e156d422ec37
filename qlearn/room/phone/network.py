"""Which of this machine's addresses a phone can reach."""

import socket


def find_lan_address() -> str:
    """Return this machine's IPv4 address on the network that its default route leads to.

    Raises
    ------
    RuntimeError
        If it has none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: connecting a UDP socket only chooses the route. The address is one
            # of those that are reserved for documentation (RFC 5737).
            probe.connect(("192.0.2.1", 9))
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if address.startswith("127.") or address == "0.0.0.0":
        raise RuntimeError(
            "This machine has no address on a network: connect it to the phones' network, or name "
            "its address (--address)."
        )
    return address
