"""Who may do what: decisions on demand, and lists without what a principal may not see."""
