"""What a vector is, told from its terms: energy, the geometry of its two branches, the distance of another base."""
