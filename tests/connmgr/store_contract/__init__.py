"""What every store of the login table does, whichever it is."""
