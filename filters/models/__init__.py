"""What several filters and captioners share: loaded networks, and arithmetic on frames. Nothing here is a stage."""
