"""The OpenAPI and AsyncAPI documents, made of the routes' declarations and models."""
