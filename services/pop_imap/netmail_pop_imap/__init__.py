"""POP/IMAP Agent: mailbox access, registers logins."""
