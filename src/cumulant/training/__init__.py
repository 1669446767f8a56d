"""From rows to a judged model: tasks, splits, search, trainers, calibration, threshold, evaluation, gate."""
