"""The interaction log, the windows cut from it, and the RecBole dataset over both."""
