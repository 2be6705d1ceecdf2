"""Mail in files: Maildir++ and mbox (mboxrd), both ways, without a change to a message's octets."""
