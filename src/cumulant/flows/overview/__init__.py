"""How the model of a project does, on one page: `problems` decides what matters most, `project_overview` reads it."""
