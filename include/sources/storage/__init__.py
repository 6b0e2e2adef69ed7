"""Storage: an application's `images` table against the objects of an S3 bucket.

The bucket is the source, and the status of an image is the copy: an image whose object is proven to be missing is
marked `error`. The table belongs to the application and is in its database. A row is written only if it is still as it
was read.
"""

from include.sources.storage.source import Storage

SOURCE = Storage()
