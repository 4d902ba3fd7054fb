"""DICOM series into volumes, and masks into DICOM segmentations."""
