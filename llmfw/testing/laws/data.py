"""Laws of transforms, datamodules and samplers."""
