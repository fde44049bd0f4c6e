"""Stand-in for ComfyUI's insides: a CPU, one process, nothing optimised; own text, signatures of 0.8.0."""
