"""What every storage engine must do.

Nothing here knows SQL but `engines`: an engine adds its factory there.
"""
