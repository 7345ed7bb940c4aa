"""Picture files as uint8 RGB arrays, and MATLAB's bicubic resizing."""
