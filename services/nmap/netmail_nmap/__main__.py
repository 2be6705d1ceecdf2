"""python -m netmail_nmap."""

from netmail_nmap.main import main

main()
