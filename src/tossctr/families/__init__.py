"""Model families: what is trained, behind one interface."""
