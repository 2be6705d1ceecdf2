"""python -m netmail_connmgr."""

from netmail_connmgr.main import main

if __name__ == "__main__":
    main()
