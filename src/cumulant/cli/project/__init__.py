"""Commands about the project: new, plan, doctor, runs, events, backup."""
