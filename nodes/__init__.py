"""The ComfyUI side: thin nodes, each a schema and one call into `tbd_core`. None are in this version."""
