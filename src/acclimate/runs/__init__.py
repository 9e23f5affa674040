"""A run on disk: its folders, its tasks, the step that writes one artifact."""
