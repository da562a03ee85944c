"""What JAX leaves out and every floor above uses; nothing here knows of diffusion."""
