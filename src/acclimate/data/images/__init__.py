"""Images beside texts: rows of many forms in, one `ImageDataset` out."""
