"""One file a section of the specification, one function a row of the catalogue."""
