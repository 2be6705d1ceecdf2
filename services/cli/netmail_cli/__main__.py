"""`python -m netmail_cli` is `netmail`."""

from netmail_cli.main import main

main()
