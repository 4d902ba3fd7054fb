"""DICOM series into volumes, and masks into DICOM segmentations."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Usual endings; files are known by their content, since scanners often give them none."""
