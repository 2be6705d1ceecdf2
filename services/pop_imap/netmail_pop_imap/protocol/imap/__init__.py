"""IMAP4rev1 (RFC 3501) and extensions: reading commands, writing responses."""
