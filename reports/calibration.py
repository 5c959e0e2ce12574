def calibration_page(x): return ""
