"""Quality control of predictions: confidence, calibration, reference ranges and flags."""
