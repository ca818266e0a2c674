locals {
  # Equality on some fields and order by another one needs a composite index; every other query is
  # served by the automatic ones. `shared/store/queries.py` lists the queries. A leading minus: newest
  # first. Where a query may or may not name a field, Firestore merges indexes of one field and the
  # order each.
  composite_indexes = {
    scheduledPosts = [
      ["companyId", "scheduledAt"],
      ["companyId", "status", "scheduledAt"],
    ]
    publishLogs = [
      ["accountId", "sweepAt"],
      ["accountId", "status", "publishedAt"],
      ["platform", "status", "-publishedAt"],
    ]
    deadLetters = [
      ["status", "-createdAt"],
      ["companyId", "-createdAt"],
      ["platform", "-createdAt"],
      ["accountId", "-createdAt"],
      ["reason", "-createdAt"],
      ["status", "updatedAt"],
    ]
    socialAccounts = [
      ["status", "refreshAt"],
    ]
    analyticsSyncJobs = [
      ["completedAt", "createdAt"],
    ]
    postMetrics = [
      ["accountId", "fetchedAt"],
    ]
    auditLog = [
      ["companyId", "-at"],
      ["by", "-at"],
      ["action", "-at"],
      ["companyId", "at"],
    ]
    scheduledJobs = [
      ["status", "-createdAt"],
      ["type", "-createdAt"],
      ["status", "completedAt"],
      ["companyId", "completedAt"],
    ]
  }

  # When Firestore may remove a document. It may lag a day: readers check the field too. Where
  # `expireAt` is missing here, a job removes what has expired, since companies keep theirs longer.
  ttl_fields = {
    idempotencyMarkers = "expireAt"
    analyticsSyncJobs  = "expireAt"
    parts              = "expireAt"
    snapshots          = "expireAt"
    bulkJobs           = "expireAt"
    rows               = "expireAt"
  }

  # Fields that no query names by themselves. Texts and maps would cost an index entry per value and
  # hit the limits on them; an indexed instant that only grows limits its collection to 500 writes a
  # second. A composite index that holds one of them is not touched.
  unindexed_fields = {
    publishLogs = [
      "content", "media", "options", "thread", "state", "committing", "parts", "attempts",
      "rawResponse", "errorMessage", "idempotencyKey",
      "dueAt", "latestAt", "leaseEndsAt", "unsettledSince", "nextRetryAt", "publishedAt",
      "createdAt", "updatedAt",
    ]
    scheduledPosts = [
      "content", "mediaAssetIds", "media", "platforms", "cloudTaskNames", "results", "errorMessage",
      "idempotencyKey", "rowKey", "rowFingerprint",
      "scheduledAt", "latestAt", "lastAttemptAt", "createdAt", "updatedAt",
    ]
    postMetrics = [
      "metrics", "metricsAt", "publishedAt", "sourceAt", "fetchedAt", "createdAt", "updatedAt",
    ]
    snapshots = [
      "metrics", "publishedAt", "sourceAt", "fetchedAt", "createdAt", "updatedAt",
    ]
    rows = ["cells", "reason", "createdAt", "updatedAt"]
    idempotencyMarkers = [
      "response", "leaseEndsAt", "startedAt", "completedAt", "createdAt", "updatedAt",
    ]
    deadLetters       = ["payload", "evidence", "message"]
    socialAccounts    = ["sealedToken", "limits", "refreshRefusal"]
    analyticsSyncJobs = ["scope", "skipped"]
    dailyMetrics      = ["gained", "told", "totals"]
    parts             = ["deliveryIds", "failures", "message", "skipped", "waking"]
    bulkJobs          = ["asked", "counts", "cursor", "fault", "file", "notes", "waking"]
    scheduledJobs     = ["payload", "result"]
  }
}

resource "google_firestore_index" "composite" {
  for_each = merge([
    for collection, indexes in local.composite_indexes : {
      for fields in indexes : "${collection}/${join("/", fields)}" => { collection = collection, fields = fields }
    }
  ]...)

  project    = local.project
  database   = google_firestore_database.records.name
  collection = each.value.collection

  dynamic "fields" {
    for_each = each.value.fields

    content {
      field_path = trimprefix(fields.value, "-")
      order      = startswith(fields.value, "-") ? "DESCENDING" : "ASCENDING"
    }
  }
}

resource "google_firestore_field" "ttl" {
  for_each = local.ttl_fields

  project    = local.project
  database   = google_firestore_database.records.name
  collection = each.key
  field      = each.value

  ttl_config {}
  index_config {}
}

resource "google_firestore_field" "unindexed" {
  for_each = merge([
    for collection, fields in local.unindexed_fields : {
      for field in fields : "${collection}.${field}" => { collection = collection, field = field }
    }
  ]...)

  project    = local.project
  database   = google_firestore_database.records.name
  collection = each.value.collection
  field      = each.value.field

  index_config {}
}
