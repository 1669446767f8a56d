"""Performance estimates without labels, calibration, and the audit of an estimate once labels arrive."""
