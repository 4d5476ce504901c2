"""Makes the embedded tiny model: text written for this project, a tokenizer of it, and a trained network."""
