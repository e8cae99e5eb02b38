"""How the bundled model is made, from public drawings to the folder in the wheel. `python -m recipes.tiny --help`."""
