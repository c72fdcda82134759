"""The networks that dlgenome can build by name, and the door for a user's own factory."""
