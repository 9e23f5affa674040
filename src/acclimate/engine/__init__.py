"""What two stages share: the loop, retrieval, mining, significance."""
