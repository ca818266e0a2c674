resource "google_storage_bucket" "sources" {
  project                     = local.project
  name                        = "${var.project}-function-sources"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  labels                      = var.labels

  # An archive that was replaced becomes a noncurrent version; only those are cleaned up. One that is
  # deployed has no end: it would have to be made again by every apply.
  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = var.sources_kept_days
    }
  }
}

# Media wait as long as their posts do, which may be years: nothing live is removed by its age.
resource "google_storage_bucket" "media" {
  project                     = local.project
  name                        = coalesce(var.media_bucket, "${var.project}-media")
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced" # platforms fetch by signed URL
  force_destroy               = false
  labels                      = var.labels
  deletion_policy             = "PREVENT"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = var.deleted_media_kept_days
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }
}

# Files of imports and exports: working copies, so their age does remove them.
resource "google_storage_bucket" "files" {
  count = length(local.keeps_files) > 0 ? 1 : 0

  project                     = local.project
  name                        = "${var.project}-bulk-files"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  labels                      = var.labels

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age = var.files_kept_days
    }
  }
}

resource "google_storage_bucket_iam_member" "keeps_files" {
  for_each = local.keeps_files

  bucket = google_storage_bucket.files[0].name
  role   = "roles/storage.objectUser"
  member = google_service_account.function[each.key].member
}

# The product puts media and files to import in, and takes exports out.
resource "google_storage_bucket_iam_member" "product" {
  for_each = merge([
    for name, bucket in merge({ media = google_storage_bucket.media.name }, { for one in google_storage_bucket.files : "files" => one.name }) : {
      for email in var.backend_callers : "${name}/${email}" => { bucket = bucket, member = "serviceAccount:${email}" }
    }
  ]...)

  bucket = each.value.bucket
  role   = "roles/storage.objectUser"
  member = each.value.member
}

resource "google_storage_bucket_iam_member" "reads_media" {
  for_each = local.reads_media

  bucket = google_storage_bucket.media.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.function[each.key].member
}
