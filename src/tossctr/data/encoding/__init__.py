"""Raw columns to ids and scaled numbers: the parts of the encoder."""
