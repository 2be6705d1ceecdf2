"""From where a login vouches for whom: each front end must say the same.

The networks 198.51.100.0/24 and 2001:db8:5::/48 are configured as shared.
"""

LOGIN = "203.0.113.1"
V6 = "2001:db8:0:1::1"
VOUCHING = [
    (LOGIN, LOGIN, True),
    (LOGIN, "203.0.113.2", False),
    (LOGIN, "203.0.113.0", False),
    (LOGIN, "::ffff:203.0.113.1", True),
    ("::ffff:203.0.113.1", LOGIN, True),
    (LOGIN, "64:ff9b::203.0.113.1", True),
    ("64:ff9b::203.0.113.1", LOGIN, True),
    (LOGIN, "64:ff9b::203.0.113.2", False),
    (LOGIN, "2002:cb00:7101::1", True),
    (LOGIN, "2002:cb00:7102::1", False),
    (LOGIN, "::203.0.113.1", False),
    (LOGIN, "::ffff:0:203.0.113.1", False),
    (V6, V6, True),
    (V6, "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
    (V6, "2001:db8:0:2::1", False),
    (V6, "2001:db8::1", False),
    # These prove nothing, or have the whole world behind them.
    ("198.51.100.1", "198.51.100.1", False),
    ("64:ff9b::198.51.100.1", "64:ff9b::198.51.100.1", False),
    ("2001:db8:5::1", "2001:db8:5::1", False),
    ("100.64.0.1", "100.64.0.1", False),
    ("169.254.0.1", "169.254.0.1", False),
    ("0.0.0.0", "0.0.0.0", False),
    ("255.255.255.255", "255.255.255.255", False),
    ("fe80::1", "fe80::1", False),
    ("2001:0:cb00:7101::1", "2001:0:cb00:7101::1", False),
    ("ff02::1", "ff02::1", False),
    ("64:ff9b::127.0.0.1", "64:ff9b::127.0.0.1", False),
    ("64:ff9b::127.0.0.1", "127.0.0.1", False),
    ("2002:7f00:1::1", "127.0.0.1", False),
]
"""Where a login came from, for which client is asked, and whether he is known then."""
