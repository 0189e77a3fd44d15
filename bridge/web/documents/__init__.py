"""What the front end says of itself: the OpenAPI and AsyncAPI documents, from the routes' own models."""
