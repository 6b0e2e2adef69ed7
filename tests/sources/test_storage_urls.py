"""Urls of objects, in every form that applications write, are read as what they name."""

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.sources.storage import urls
from include.sources.storage.urls import Location, UnreadableUrl, locate

BUCKET = "images"
HOST = "https://images.s3.amazonaws.com/"
KEY = "staged/6c1d2b0e/6c1d2b0e-staged.jpg"

# What stands before the key, by form.
FORMS = {
    "virtual host": "https://{bucket}.s3.amazonaws.com/",
    "virtual host, region": "https://{bucket}.s3.eu-central-1.amazonaws.com/",
    "virtual host, legacy region": "https://{bucket}.s3-us-west-2.amazonaws.com/",
    "virtual host, dualstack": "https://{bucket}.s3.dualstack.us-gov-west-1.amazonaws.com/",
    "virtual host, fips": "https://{bucket}.s3-fips.us-east-1.amazonaws.com/",
    "virtual host, accelerated": "https://{bucket}.s3-accelerate.dualstack.amazonaws.com/",
    "virtual host, China": "https://{bucket}.s3.cn-north-1.amazonaws.com.cn/",
    "virtual host, port": "https://{bucket}.s3.amazonaws.com:443/",
    "virtual host, user": "https://user:pass@{bucket}.s3.amazonaws.com/",
    "virtual host, absolute": "https://{bucket}.s3.amazonaws.com./",
    "path, region": "https://s3.eu-central-1.amazonaws.com/{bucket}/",
    "path, legacy region": "https://s3-us-west-2.amazonaws.com/{bucket}/",
    "path, no region": "http://s3.amazonaws.com/{bucket}/",
    "path, dualstack": "https://s3.dualstack.us-west-2.amazonaws.com/{bucket}/",
    "path, China": "https://s3.cn-north-1.amazonaws.com.cn/{bucket}/",
    "path, local": "http://localhost:9000/{bucket}/",
    "path, address": "http://[::1]:9000/{bucket}/",
    "path, s3 in the host": "https://s3.vendor.example/{bucket}/",
    "path, s3 within the host": "https://my-s3-store.example:8443/{bucket}/",
    "path, user": "http://user:pass@minio/{bucket}/",
    "path, doubled slash": "http://minio:9000//{bucket}/",
    "upper case": "HTTPS://{bucket}.S3.AMAZONAWS.COM/",
}
# Only the configured bucket is known in a host of any vendor.
VENDOR = "vendor.example"
VENDORS = {
    "virtual host, vendor": "https://{bucket}.vendor.example/",
    "virtual host, vendor's s3": "https://{bucket}.s3.fr-par.vendor.example:8443/",
    "virtual host, local": "http://{bucket}.localhost:9000/",
}
S3 = "s3://{bucket}/"
EVERY_FORM = [*FORMS.values(), *VENDORS.values(), S3]

QUERIES = (
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20250101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Expires=9",
    "?x-id=GetObject&response-content-type=image%2Fpng&x-amz-signature=0",
    "?AWSAccessKeyId=AKIA&Expires=1735689600&Signature=a%2Bb%3D",
    "?versionId=3sL4kqtJlcpXroDTDmJ%2BrmSpXd3dIbrHY%2BMTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
    "?v=2&versionId=null#top",
)

# Any text that a key can be, in S3 and in Postgres.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
AWKWARD = st.text(st.sampled_from("ab/%25?#&=+ éü😀.~"), min_size=1)
ANY_KEY = KEYS | AWKWARD
ENCODED = st.sampled_from([*FORMS.values(), *VENDORS.values()])
EVERY = st.sampled_from(EVERY_FORM)
OTHERS = ("photos", "images2", "my-s3-photos", "s3-images", "my.images", "x.s3.images")

# The forms are drawn with the keys: more examples than usual cover them. Slow machines are no failure.
often = settings(max_examples=600, deadline=None)


@pytest.mark.parametrize("form", EVERY_FORM)
def test_plain_key_has_one_reading(form):
    assert locate(form.format(bucket=BUCKET) + KEY, BUCKET, VENDOR) == Location(BUCKET, (KEY,))


@often
@given(form=ENCODED, key=ANY_KEY, safe=st.sampled_from(["/", "", "/+", "/!$&'()*+,;=:@"]))
def test_encoded_key_is_the_first_reading(form, key, safe):
    found = locate(form.format(bucket=BUCKET) + quote(key, safe=safe), BUCKET)
    assert (found.bucket, found.keys[0]) == (BUCKET, key)


@often
@given(form=ENCODED, query=st.sampled_from(QUERIES), key=ANY_KEY)
def test_query_of_s3_is_cut(form, query, key):
    encoded = form.format(bucket=BUCKET) + quote(key)
    assert locate(encoded + query, BUCKET) == locate(encoded, BUCKET)


@often
@given(form=EVERY, key=ANY_KEY)
def test_key_that_nobody_encoded_is_among_the_readings(form, key):
    found = locate(form.format(bucket=BUCKET) + key, BUCKET)
    assert found.bucket == BUCKET
    assert key in found.keys


@often
@given(key=ANY_KEY)
def test_s3_scheme_is_read_raw_first(key):
    found = locate(S3.format(bucket=BUCKET) + key, BUCKET)
    assert found.keys[0] == key
    assert quote(key) == key or key in locate(S3.format(bucket=BUCKET) + quote(key), BUCKET).keys[:2]


@often
@given(form=st.sampled_from([*FORMS.values(), S3]), other=st.sampled_from(OTHERS), key=ANY_KEY)
def test_foreign_bucket_is_named(form, other, key):
    assert locate(form.format(bucket=other) + quote(key), BUCKET).bucket == other


@pytest.mark.parametrize("form", [*FORMS.values(), *VENDORS.values(), S3])
@pytest.mark.parametrize("bucket", ["my-s3-x", "my.dotted.bucket", "s3-eu", "Legacy_Bucket"])
def test_configured_bucket_is_known_by_any_name(form, bucket):
    assert locate(form.format(bucket=bucket) + KEY, bucket, VENDOR) == Location(bucket, (KEY,))


@often
@given(
    text=st.text() | st.from_regex(r"\A(https?|s3)://[^/]{0,9}(/[^/]{0,9}){0,3}\Z"),
    bucket=st.sampled_from([BUCKET, "a.b"]),
)
def test_any_text_is_located_or_refused(text, bucket):
    try:
        keys = locate(text, bucket).keys
    except UnreadableUrl:
        return
    assert keys
    assert all(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "uploads/a.jpg",
        "/images/uploads/a.jpg",
        "//localhost:9000/images/a.jpg",
        "https:/localhost/images/a.jpg",
        "ftp://localhost/images/a.jpg",
        "data:image/png;base64,AAAA",
        " https://images.s3.amazonaws.com/a.jpg",
        "https:///images/a.jpg",
        "https://:9000/images/a.jpg",
        "https://images.s3.amazonaws.com?prefix=a/b",
        "https://images.s3.amazonaws.com",
        "https://images.s3.amazonaws.com/",
        "https://images.s3.amazonaws.com/?versionId=3",
        "https://images.vendor.example/",
        "https://images.vendor.example/?X-Amz-Signature=0",
        "http://localhost:9000",
        "http://localhost:9000/",
        "http://localhost:9000/images",
        "http://localhost:9000/images/",
        "http://localhost:9000/images?prefix=a/b",
        "http://localhost:9000/images#a/b",
        "http://localhost:9000/images/?versionId=1",
        "s3://images",
        "s3://images/",
        "s3:///a.jpg",
        # What the key would be, Postgres can't hold.
        "https://images.s3.amazonaws.com/a%00b",
        "s3://images/a%00b",
    ],
)
def test_url_without_an_object_is_refused(url):
    with pytest.raises(UnreadableUrl) as refused:
        locate(url, BUCKET)
    assert "\n" not in str(refused.value)
    assert not url or url.strip() not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        # An invalid escape is no escape; beside a valid one both readings remain.
        (HOST + "100%.jpg", ("100%.jpg",)),
        (HOST + "100%25.jpg", ("100%.jpg", "100%25.jpg")),
        (HOST + "100%-a%20b", ("100%-a b", "100%-a%20b")),
        # Forms encode a space as a plus, and some software encodes twice.
        (HOST + "a+b", ("a+b", "a b")),
        (HOST + "a%2Bb", ("a+b", "a%2Bb", "a b")),
        (HOST + "a%2520b", ("a%20b", "a%2520b", "a b")),
        (HOST + "a%2500b", ("a%00b", "a%2500b")),
        # An accent may be a character of its own, or not.
        (HOST + "caf\u00e9", ("caf\u00e9", "cafe\u0301")),
        (HOST + "cafe%CC%81", ("cafe\u0301", "cafe%CC%81", "caf\u00e9")),
        ("s3://images/caf\u00e9+1", ("caf\u00e9+1", "caf\u00e9 1", "cafe\u0301+1", "cafe\u0301 1")),
        # A slash more may be a slip, or part of the key.
        (HOST + "/a//b/", ("/a//b/", "a//b/", "a/b/")),
        (HOST + "%2Fa", ("/a", "%2Fa", "a")),
        (HOST + "//a", ("//a", "a")),
        ("https://images.vendor.example//a", ("/a", "a")),
        ("http://minio/images//a", ("/a", "a")),
        ("s3://images//a", ("/a", "a")),
        # A query or fragment of nobody's may be part of a key, encoded (as browsers do) or not.
        (HOST + "a?v=2", ("a", "a?v=2")),
        (HOST + "a#1.jpg", ("a", "a#1.jpg")),
        (HOST + "a%20#1.jpg", ("a ", "a%20", "a%20#1.jpg", "a #1.jpg")),
        (HOST + "#1.jpg", ("#1.jpg",)),
        (HOST + "a#1.jpg?X-Amz-Signature=0", ("a", "a#1.jpg")),
        (HOST + "a?b?versionId=0", ("a", "a?b")),
        ("s3://images/a%20?b#c", ("a%20?b#c", "a ?b#c", "a%20", "a ")),
        ("s3://images/a?versionId=3", ("a?versionId=3", "a")),
        # The bucket's name before the endpoint's may be the endpoint's own.
        ("https://images.vendor.example/images/a", ("images/a", "a")),
        ("https://images.vendor.example/imagesque", ("imagesque",)),
        # The host of a CDN may stand for the bucket.
        ("https://imagesque.vendor.example/images/a", ("a", "images/a")),
        ("https://cdn.example/images/a%20b", ("a b", "a%20b", "images/a b", "images/a%20b")),
        ("https://cdn.example:9000/images/a", ("a",)),
        ("https://media.example.com/images/a/b.jpg", ("a/b.jpg", "images/a/b.jpg")),
        ("https://media.example.com/images/images/a", ("images/a", "images/images/a")),
        # Browsers drop spaces around a url, line breaks, and segments of dots; they take a backslash for a slash.
        (HOST + "a ", ("a ", "a")),
        (HOST + "a\n", ("a\n", "a")),
        (HOST + "a%20 ", ("a  ", "a%20 ", "a ", "a%20")),
        (HOST + "./a", ("./a", "a")),
        (
            HOST + "a/../b/%2E./c?v=../2",
            ("a/../b/../c", "a/../b/%2E./c", "a/../b/%2E./c?v=../2", "a/../b/../c?v=../2", "c", "c?v=../2"),
        ),
        ("http://minio/images/a/./b", ("a/./b", "a/b")),
        ("s3://images/a\\b", ("a\\b", "a/b")),
        # HTML writes some characters as entities.
        (HOST + "a&amp;b", ("a&amp;b", "a&b")),
        (HOST + "a&#39;b", ("a&", "a&#39;b", "a'b")),
        # A key may be kept with its bucket.
        ("s3://images/images/a", ("images/a", "a")),
        (HOST + "images/a", ("images/a",)),
    ],
)
def test_doubtful_url_has_all_its_readings(url, keys):
    assert locate(url, BUCKET) == Location(BUCKET, keys)


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.com/old-images/a.jpg",
        "https://images.example.com:9000/old-images/a.jpg",
        "https://images.nyc3.cdn.digitaloceanspaces.com/old-images/a.jpg",
    ],
)
def test_host_that_may_be_called_like_the_bucket_by_chance_says_so(url):
    """Its object may lie in another bucket, so it need not be missing if it isn't here."""
    assert locate(url, BUCKET, "minio") == Location(BUCKET, ("old-images/a.jpg",), "by_chance")


def test_url_that_may_mean_another_bucket_says_so():
    found = locate("http://minio/images/../old-images/a.jpg", BUCKET)
    assert (found.bucket, found.otherwise) == (BUCKET, "foreign")


def test_key_that_nobody_can_ask_for_counts_more_than_a_host_by_chance():
    assert locate("https://images.example.com/old-images/caf%E9.jpg", BUCKET).otherwise == "unreadable"


@pytest.mark.parametrize("name", ["caf%E9.jpg", "%ED%A0%80.jpg", "\ud800%20"])
def test_key_that_is_no_utf8_can_not_be_asked_for(name):
    """Its object may lie there all the same."""
    assert locate(HOST + name, BUCKET) == Location(BUCKET, (name,), "unreadable")


@pytest.mark.parametrize("path", ["a.jpg", "images/a.jpg", "/a.jpg", "a.jpg?v=1/2"])
def test_path_that_begins_with_no_other_bucket_is_of_this_one(path):
    assert locate(f"https://images.example.com/{path}", BUCKET).otherwise == ""


def test_endpoint_of_the_connection_is_no_bucket():
    """A store may be called like the bucket."""
    url = "https://storage.googleapis.com/{}/a.jpg"
    assert locate(url.format("other"), "storage", "storage.googleapis.com") == Location("other", ("a.jpg",))
    assert locate(url.format("storage"), "storage", "storage.googleapis.com") == Location("storage", ("a.jpg",))
    assert locate(url.format("other"), "storage") == Location("storage", ("other/a.jpg",), "by_chance")


@pytest.mark.parametrize("form", EVERY_FORM)
@pytest.mark.parametrize(("key", "size"), [("a", 1025), ("\u00e9", 513), ("\U0001f600", 257)])
def test_key_that_is_too_long_for_s3_is_refused(form, key, size):
    before = form.format(bucket=BUCKET)
    with pytest.raises(UnreadableUrl):
        locate(before + key * size, BUCKET, VENDOR)
    assert key * (size - 1) in locate(before + key * (size - 1), BUCKET, VENDOR).keys


@pytest.mark.parametrize("host", ["media.example.com/images", "images.example.com", "images.example.com/old-images"])
def test_plain_path_behind_a_public_host_needs_no_further_work(monkeypatch, host):
    """Millions of urls may be like that."""
    url = f"https://{host}/{KEY}"
    found = locate(url, BUCKET)
    monkeypatch.setattr(urls, "_all_readings", None)
    assert locate(url, BUCKET) == found


@often
@given(
    host=st.sampled_from(["media.example.com", "images.example.com", "images.s3.amazonaws.com", "minio", "minio:9000"]),
    path=st.from_regex(r"\A(images|other|a)(/(images|a|b\.jpg)){1,3}\Z"),
)
def test_plain_path_has_the_readings_of_any_other(host, path):
    known = urls._host("https", host, BUCKET, "")
    assert locate(f"https://{host}/{path}", BUCKET) == urls._all_readings(path, known, BUCKET)


def test_reading_that_is_too_long_for_s3_is_none():
    assert locate(f"{HOST}a?{'x' * 2000}", BUCKET).keys == ("a",)
    assert locate(HOST + "%61" * 1000, BUCKET).keys == ("a" * 1000,)
