"""What several captioners share: clients and decoders of models, prompts, sampling of frames. Nothing here is a stage."""
