"""Access to APIs and S3 stores: a client with retries, paginators, and errors sorted by what to do about them."""
