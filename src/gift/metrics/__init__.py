"""What is measured: images (and references) in, numbers out."""
