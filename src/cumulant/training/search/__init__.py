"""The search for a model: trials, folds, choices, the final fit."""
