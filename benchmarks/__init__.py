"""How fast dlgenome is, on its own and beside other attribution programs; not installed with it."""
