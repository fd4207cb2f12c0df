"""An encoder and a chunker for pgembed, as an example to copy. Importing it must cost nothing: pgembed lists it."""
