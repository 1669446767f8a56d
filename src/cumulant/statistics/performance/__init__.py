"""Performance estimates without labels, calibration, and the audit of an estimate once labels arrive.

Needs numpy and scipy only. `confidence` estimates a classifier's metrics from calibrated probabilities (CBPE),
`losses` a regression's from a model of its loss; `assumptions` gives the reason when neither may be trusted.
"""
