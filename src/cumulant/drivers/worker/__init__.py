"""Compute by workers: steps wait in the journal until a process of any machine takes them."""
