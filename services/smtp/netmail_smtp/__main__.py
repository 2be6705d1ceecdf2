"""python -m netmail_smtp."""

from netmail_smtp.main import main

if __name__ == "__main__":
    main()
