"""What the metrics of a scan of storage mean, in a sentence each."""

from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    "checked": "Images that were read, without deleted ones.",
    "looked_at": "Images that were judged, with every object that they need looked at.",
    "missing_original": "Images whose original object is proven to be absent.",
    "missing_staged": "Images whose staged object is proven to be absent.",
    "missing_lately": "Images that lack an object now, plus those that unattended runs have marked lately; 0 if "
    "none lacks one now.",
    "marked_lately": "Images that unattended runs have marked lately, without what a person decided.",
    "looked_at_lately": "Images of which `missing_lately` is a share.",
    "missing_in_doubt": "Missing images while the bucket doesn't show other images' objects either.",
    "restorable": "Missing images whose object is only marked as deleted in a bucket with versions.",
    "in_processing": "Missing images in status `processing`: counted, never written.",
    "healable": "Images that a run has marked and whose objects are there again.",
    "feed_noise": "Images that the first look took for missing, or for back again, and the second look did not.",
    "rows_young": "Images that changed within the last 15 minutes, or while the check looked at their objects.",
    "rows_in_error": "Images in status `error`.",
    "ready_without_staged": "Images in status `ready` that name no staged object.",
    "orphan_objects": "Objects that no image names; not measured unless the whole bucket was listed for all images.",
    "unknown": "Images that are unproven because an object gave no answer, or LIST and HEAD disagree.",
    "foreign_bucket": "Unproven images whose url names another bucket, or may name one.",
    "unreadable_url": "Unproven images whose url can't be read, or names a key that is too long for S3.",
    "without_original": "Unproven images that name no original.",
    "empty_object": "Unproven images whose object is there and has no content.",
    "other_reading": "Unproven images whose object is found only under another reading of the url.",
    "uncertain_age": "Unproven images whose object is missing, but whose upload may not have ended: they were young in "
    "an earlier scan too, or their time of change lies in the future.",
    "unknown_status": "Unproven images with a status that is not known here.",
}
