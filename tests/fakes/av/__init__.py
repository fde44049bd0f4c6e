"""Stand-in for PyAV, which ComfyUI brings: its errors alone."""
