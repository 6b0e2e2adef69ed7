"""Storage: an application's `images` table against the objects of an S3 bucket.

The bucket is the source, the status of an image is the copy: an image whose object is proven to be missing is marked
`error`. The table is the application's, in its own database, and is written only where a row is still as it was read.
"""

from include.sources.storage.source import Storage

SOURCE = Storage()
