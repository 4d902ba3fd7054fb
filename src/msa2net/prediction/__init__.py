"""Predicting what people have: files and folders in, masks beside their names out."""
