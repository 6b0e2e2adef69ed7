"""What a simulated store is like: its keys, its one bucket, the rights of its caller, and its habits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """One store with one bucket and one caller. All of it can change while it runs."""

    access_key: str = "demo-access"
    secret_key: str = "demo-secret"
    bucket: str = "images"
    region: str = "us-east-1"
    """The bucket's region; requests signed for another are sent there by 301."""
    may_list: bool = True
    """s3:ListBucket. Without it a missing key answers 403, as the vendor documents."""
    may_read: bool = True
    """s3:GetObject."""
    minio: bool = False
    """Whether HEAD errors name their code in a header, as MinIO does."""
    latency_ms: int = 0
