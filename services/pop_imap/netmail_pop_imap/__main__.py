"""python -m netmail_pop_imap."""

from netmail_pop_imap.main import main

main()
