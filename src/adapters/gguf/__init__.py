"""llama.cpp's file format, through its own Python package."""
